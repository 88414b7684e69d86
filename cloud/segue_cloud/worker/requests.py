"""Reading a worker's request stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar

from google.protobuf.message import Message

from segue_protocol.errors import Cancelled, InvalidRequest

M = TypeVar("M", bound=Message)


async def next_message(requests: AsyncIterator[M], *expected: str) -> M:
    """The next message, which must be one of the `expected` kinds.

    Raises InvalidRequest for another kind and Cancelled when the peer has
    ended its side.
    """
    async for message in requests:
        kind = message.WhichOneof("message")
        if kind not in expected:
            raise InvalidRequest(
                f"got a {kind or 'nameless'} message, expected {' or '.join(expected)}"
            )
        return message
    raise Cancelled(f"the stream ended before {' or '.join(expected)} came")
