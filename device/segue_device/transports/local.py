"""A cloud in the same event loop: no socket, no serialisation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from segue_device.transports.base import CloudStream
from segue_protocol.streams import Handler, LocalStream
from segue_protocol.wire import public


class LocalTransport:
    """Hands every stream to a handler, e.g. the `generate` method of a gateway."""

    def __init__(
        self,
        generate: Handler[public.GenerateRequest, public.GenerateResponse],
        get_model: Callable[[public.GetModelRequest], Awaitable[public.GetModelResponse]],
    ) -> None:
        self._generate = generate
        self._get_model = get_model

    async def open(self, *, anew: bool = False) -> CloudStream:
        return LocalStream(self._generate)

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        return await self._get_model(request)

    async def aclose(self) -> None:
        pass
