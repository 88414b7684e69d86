"""How a device reaches a cloud."""

from __future__ import annotations

from typing import Protocol

from segue_protocol.streams import Stream
from segue_protocol.wire import public

CloudStream = Stream[public.GenerateRequest, public.GenerateResponse]


class Transport(Protocol):
    """Opens one stream an answer; safe for several answers at once."""

    async def open(self, *, anew: bool = False) -> CloudStream:
        """A new `Generate` stream. Raises Unavailable when nobody answers.

        `anew`: not over a connection that is there already, for it may be dead (a phone
        that has changed its network is told nothing).
        """
        ...

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        """What the cloud runs."""
        ...

    async def aclose(self) -> None:
        """Close every stream and the connection. Idempotent."""
        ...
