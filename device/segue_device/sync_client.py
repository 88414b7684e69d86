"""`Client`: the same client for code without `async`, a thin portal over :class:`AsyncClient`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

from segue_device import events
from segue_device.answer_stream import AnswerStream
from segue_device.client import AsyncClient
from segue_device.conditions import DeviceConditions
from segue_device.openai_form.sync import Chat, Completions
from segue_device.session import Session
from segue_device.status import Preflight, Status
from segue_protocol.errors import InvalidRequest


class Client:
    """Takes what :class:`AsyncClient` takes; runs it in a thread of its own."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._held = ExitStack()
        self._portal: BlockingPortal | None = None
        self._client: AsyncClient | None = None
        self._entered: set[SyncAnswer] = set()  # and not left, so that closing ends them

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
        for answer in list(self._entered):
            answer.__exit__(None, None, None)
        self._held.close()

    def stream(self, **request: Any) -> SyncAnswer:
        """As :meth:`AsyncClient.stream`. Raises InvalidRequest outside a `with` block."""
        portal, client = self._open()
        return SyncAnswer(portal, portal.call(partial(client.stream, **request)), self._entered)

    def session(self, **options: Any) -> SyncSession:
        """As :meth:`AsyncClient.session`."""
        portal, client = self._open()
        return SyncSession(portal, client.session(**options), self._entered)

    @property
    def chat(self) -> Chat:
        """`chat.completions.create`, as in the openai package."""
        return Chat(self._open)

    @property
    def completions(self) -> Completions:
        """`completions.create`, as in the openai package."""
        return Completions(self._open)

    def preflight(self, **prompt: Any) -> Preflight:
        """As :meth:`AsyncClient.preflight`."""
        portal, client = self._open()
        return portal.call(partial(client.preflight, **prompt))

    def keep_prefix(self, **prompt: Any) -> int:
        """As :meth:`AsyncClient.keep_prefix`."""
        portal, client = self._open()
        return portal.call(partial(client.keep_prefix, **prompt))

    def status(self, *, model: str = "") -> Status:
        """As :meth:`AsyncClient.status`."""
        portal, client = self._open()
        return portal.call(partial(client.status, model=model))

    def set_conditions(self, conditions: DeviceConditions) -> None:
        """As :meth:`AsyncClient.set_conditions`; may be called from any thread."""
        portal, client = self._open()
        portal.call(client.set_conditions, conditions)

    def suspend(self) -> None:
        """As :meth:`AsyncClient.suspend`; may be called from any thread."""
        portal, client = self._open()
        portal.call(client.suspend)

    def resume(self) -> None:
        """As :meth:`AsyncClient.resume`; may be called from any thread."""
        portal, client = self._open()
        portal.call(client.resume)

    def _open(self) -> tuple[BlockingPortal, AsyncClient]:
        if self._portal is None or self._client is None:
            raise InvalidRequest("the client is not open; use it in a `with` block")
        return self._portal, self._client


class SyncSession:
    """A :class:`~segue_device.session.Session` without `async`."""

    def __init__(self, portal: BlockingPortal, session: Session, entered: set[SyncAnswer]) -> None:
        self._portal = portal
        self._session = session
        self._entered = entered

    @property
    def messages(self) -> Sequence[Mapping[str, str]]:
        """The conversation so far, oldest first."""
        return self._session.messages

    def stream(self, text: str, **options: Any) -> SyncAnswer:
        """The next turn: the user says `text`."""
        stream = self._portal.call(partial(self._session.stream, text, **options))
        return SyncAnswer(self._portal, stream, self._entered)


class SyncAnswer:
    """One answer: a single-use context manager and iterator of events."""

    def __init__(
        self, portal: BlockingPortal, stream: AnswerStream, entered: set[SyncAnswer]
    ) -> None:
        self._portal = portal
        self._stream = stream
        self._entered = entered
        self._held = ExitStack()

    def __enter__(self) -> SyncAnswer:
        self._held.enter_context(self._portal.wrap_async_context_manager(self._stream))
        self._entered.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered.discard(self)
        self._held.close()

    def __iter__(self) -> Iterator[events.Event]:
        return self._iterate(self._stream.__aiter__())

    def raw(self) -> Iterator[events.Event]:
        """The events as they happen: from now on nothing is paced."""
        return self._iterate(self._portal.call(self._stream.raw))

    def _iterate(self, following: AsyncIterator[events.Event]) -> Iterator[events.Event]:
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

    def takeover(self) -> None:
        """Let the device take over as soon as it has caught up, whatever the credit."""
        self._portal.call(self._stream.takeover)
