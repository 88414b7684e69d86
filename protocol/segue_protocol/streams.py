"""Bidirectional message streams, whatever carries them.

A :class:`Stream` is the client's end. A handler is the server's end: a function
from an async iterator of requests to an async iterator of responses. gRPC
(:mod:`segue_protocol.grpc_streams`) and WebSocket (:mod:`segue_protocol.frames`)
carry streams between processes; :class:`LocalStream` carries them inside one
event loop, so that the same handlers run in tests without a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Generic, Protocol, TypeVar

from segue_protocol.errors import InvalidRequest, SegueError, Unavailable

Sent = TypeVar("Sent")
Received = TypeVar("Received")
SentContra = TypeVar("SentContra", contravariant=True)
ReceivedCo = TypeVar("ReceivedCo", covariant=True)

# Of one message as it is written, on every transport that writes.
MAX_MESSAGE_BYTES = 16 * 2**20
TOO_LARGE = "MESSAGE_TOO_LARGE"

Handler = Callable[[AsyncIterator[Sent]], AsyncGenerator[Received, None]]


class Stream(Protocol[SentContra, ReceivedCo]):
    """The client's end. Any task may send, one task receives."""

    async def send(self, message: SentContra) -> None:
        """Send; raises the peer's error, or Unavailable once the stream is over."""
        ...

    async def receive(self) -> ReceivedCo | None:
        """The next message; None after an orderly end; raises the peer's error.

        Cancelling a pending `receive` may end the whole stream (gRPC does).
        """
        ...

    async def aclose(self) -> None:
        """Abort what is still open. Idempotent; the peer's handler is cancelled."""
        ...


def require_size(size_bytes: int) -> None:
    """Raise InvalidRequest when a message to be sent is larger than any peer accepts."""
    if size_bytes > MAX_MESSAGE_BYTES:
        raise InvalidRequest(
            f"a message takes {size_bytes} bytes, expected at most {MAX_MESSAGE_BYTES}",
            reason=TOO_LARGE,
        )


class LocalStream(Generic[Sent, Received]):
    """A stream to a handler in the same event loop."""

    def __init__(self, handler: Handler[Sent, Received]) -> None:
        self._requests: asyncio.Queue[Sent] = asyncio.Queue()
        self._responses: asyncio.Queue[Received | None] = asyncio.Queue()
        self._error: SegueError | None = None
        self._over = False
        self._task = asyncio.create_task(self._run(handler))

    async def _run(self, handler: Handler[Sent, Received]) -> None:
        async def requests() -> AsyncIterator[Sent]:
            while True:
                yield await self._requests.get()

        try:
            async with aclosing(handler(requests())) as responses:
                async for response in responses:
                    self._responses.put_nowait(response)
        except SegueError as error:
            self._error = error
        finally:
            self._over = True
            self._responses.put_nowait(None)

    async def send(self, message: Sent) -> None:
        if self._over:
            raise self._error or Unavailable("the stream has ended", reason="STREAM_ENDED")
        self._requests.put_nowait(message)

    async def receive(self) -> Received | None:
        response = await self._responses.get()
        if response is None:
            self._responses.put_nowait(None)  # every later call sees the end too
            if self._error is not None:
                raise self._error
        return response

    async def aclose(self) -> None:
        if not self._task.done():
            self._error = self._error or Unavailable("the stream was closed", reason="CLOSED")
            self._task.cancel()
        await asyncio.wait([self._task])
        if not self._over:  # cancelled before its first step: _run never saw it
            self._over = True
            self._responses.put_nowait(None)
