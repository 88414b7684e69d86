"""One answer as an app holds it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from segue_device import events
from segue_device.answer import Answer
from segue_device.engines.runner import Runner
from segue_device.generation import Generation
from segue_device.pacing import Pacing
from segue_device.request import AnswerRequest
from segue_device.token_log import Source
from segue_device.transports.base import Transport
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.text import TextStream

Learn = Callable[[Answer, events.Result], Awaitable[None]]


async def learn_nothing(answer: Answer, result: events.Result) -> None:
    """For an answer that nobody learns from."""


class Owner(Protocol):
    """Whom an answer tells that it begins and ends."""

    def answer_opened(self, answer: AnswerStream) -> None:
        """Raises InvalidRequest if it may not run now."""
        ...

    def answer_closed(self, answer: AnswerStream) -> None: ...


class AnswerStream:
    """One answer: a single-use async context manager and iterator of events.

    Leaving the context early cancels the answer. Errors are raised by the
    iteration, after every event that came before, and carry `.partial`.
    """

    def __init__(
        self,
        request: AnswerRequest,
        owner: Owner,
        *,
        runner: Runner | None,
        transport: Transport | None,
        text: TextStream | None,
        pacing: Pacing,
        on_result: Callable[[events.Result], None] = lambda result: None,
        learn: Learn = learn_nothing,
    ) -> None:
        """`on_result` is told of an answer that did not fail, also of a cancelled one.

        `learn` follows when the app has its last event.
        """
        self._request = request
        self._owner = owner
        self._on_result = on_result
        self._learn = learn
        self._runner = runner
        self._transport = transport
        self._text = text
        self._pacing = pacing
        self._tasks: TaskGroup | None = None
        self._generation: Generation | None = None
        self._error: SegueError | None = None
        self._result: events.Result | None = None

    async def __aenter__(self) -> AnswerStream:
        if self._generation is not None:
            raise InvalidRequest("an answer stream can be entered once; call stream() again")
        self._owner.answer_opened(self)
        self._put, self._events = anyio.create_memory_object_stream[events.Event](math.inf)
        self._generation = Generation(
            self._request,
            self._put.send_nowait,
            runner=self._runner,
            transport=self._transport,
            text=self._text,
            pacing=self._pacing,
        )
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run, self._generation)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        self.cancel()
        try:
            # The app's own exception is not the group's: it goes on unwrapped.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._events.close()
            self._owner.answer_closed(self)

    def __aiter__(self) -> AsyncIterator[events.Event]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[events.Event]:
        async for event in self._events:
            yield event
        if self._error is not None:
            raise self._error

    async def _run(self, generation: Generation) -> None:
        try:
            # A cancelled app leaves by `cancel`, which also tells the cloud; that takes
            # a moment, and no longer than an answer's end ever does.
            with anyio.CancelScope(shield=True):
                result = self._result = await generation.run()
                self._on_result(result)
                self._put.send_nowait(events.Done(result))
                self._put.close()
                await self._learn(generation.answer, result)
        except SegueError as error:
            self._error = error
        finally:
            self._put.close()

    @property
    def uses_engine(self) -> bool:
        """Whether the device's engine takes part."""
        return self._runner is not None

    @property
    def progress(self) -> events.Progress:
        """How far it is now. All zero before the context is entered."""
        if self._generation is None:
            return events.Progress(0, 0, 0, 0, 0)
        answer = self._generation.answer
        return events.Progress(
            received_tokens=len(answer.log),
            shown_tokens=answer.display.cursor,
            prefilled_tokens=answer.prompt.done_tokens,
            prompt_tokens=answer.prompt.kept_tokens,
            lag_tokens=(
                len(answer.log) - answer.absorbed_tokens if answer.log.writer is Source.CLOUD else 0
            ),
        )

    def raw(self) -> AsyncIterator[events.Event]:
        """The events as they happen: from now on nothing is paced."""
        self._pacing = Pacing.off()
        if self._generation is not None:
            self._generation.stop_pacing()
        return self._iterate()

    async def text_deltas(self) -> AsyncIterator[str]:
        """The text alone, at the pacer's rate."""
        async for event in self:
            if isinstance(event, events.Token) and event.text:
                yield event.text

    async def final(self) -> events.Result:
        """Read to the end; returns the result or raises the answer's error."""
        async for _ in self:
            pass
        assert self._result is not None
        return self._result

    def cancel(self) -> None:
        """End the answer now. Idempotent."""
        if self._generation is not None:
            self._generation.cancel()

    def takeover(self) -> None:
        """Let the device take over as soon as it has caught up, whatever the credit."""
        if self._generation is not None:
            self._generation.takeover()

    def suspend(self) -> None:
        """Stop all work and close the connection, as before the app is put to sleep."""
        if self._generation is not None:
            self._generation.answer.suspend()

    def resume(self, slept_s: float) -> None:
        """Go on after :meth:`suspend`, `slept_s` seconds later."""
        if self._generation is not None:
            self._generation.answer.resume(slept_s)

    def rest(self, why: str | None) -> None:
        """Spare the device while the cloud can go on, because of `why`; None ends it."""
        if self._generation is not None:
            self._generation.answer.rest(why)
