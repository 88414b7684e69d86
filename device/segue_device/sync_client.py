"""`Client`: the same client for code without `async`, a thin portal over :class:`AsyncClient`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from segue_device import events
from segue_device.answer_stream import AnswerStream
from segue_device.client import AsyncClient
from segue_protocol.errors import InvalidRequest


class Client:
    """Takes what :class:`AsyncClient` takes; runs it in a thread of its own."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._held = ExitStack()
        self._portal: BlockingPortal | None = None
        self._client: AsyncClient | None = None

    def __enter__(self) -> Client:
        with ExitStack() as opening:
            portal = opening.enter_context(start_blocking_portal())
            client = portal.call(partial(AsyncClient, **self._options))
            opening.enter_context(portal.wrap_async_context_manager(client))
            self._portal, self._client = portal, client
            self._held = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal = self._client = None
        self._held.close()

    def stream(self, **request: Any) -> SyncAnswer:
        """As :meth:`AsyncClient.stream`. Raises InvalidRequest outside a `with` block."""
        if self._portal is None or self._client is None:
            raise InvalidRequest("the client is not open; use it in a `with` block")
        stream = self._portal.call(partial(self._client.stream, **request))
        return SyncAnswer(self._portal, stream)


class SyncAnswer:
    """One answer: a single-use context manager and iterator of events."""

    def __init__(self, portal: BlockingPortal, stream: AnswerStream) -> None:
        self._portal = portal
        self._stream = stream
        self._held = ExitStack()

    def __enter__(self) -> SyncAnswer:
        self._held.enter_context(self._portal.wrap_async_context_manager(self._stream))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def __iter__(self) -> Iterator[events.Event]:
        following = self._stream.__aiter__()

        async def receive() -> events.Event | None:
            return await anext(following, None)

        while (event := self._portal.call(receive)) is not None:
            yield event

    def text_deltas(self) -> Iterator[str]:
        """The text alone, at the pacer's rate."""
        for event in self:
            if isinstance(event, events.Token) and event.text:
                yield event.text

    def final(self) -> events.Result:
        """Read to the end; returns the result or raises the answer's error."""
        return self._portal.call(self._stream.final)

    def cancel(self) -> None:
        """End the answer now. Idempotent; may be called from any thread."""
        self._portal.call(self._stream.cancel)

    def take_over(self) -> None:
        """Let the device take over as soon as it has caught up, whatever the credit."""
        self._portal.call(self._stream.take_over)
