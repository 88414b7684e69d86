"""One answer as an app holds it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from segue_device import events
from segue_device.engines.runner import Runner
from segue_device.generation import Generation
from segue_device.pacing import Pacing
from segue_device.request import AnswerRequest
from segue_device.transports.base import Transport
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.text import TextStream


class EngineLease(Protocol):
    """Who decides that one answer at a time uses the engine."""

    def claim_engine(self) -> None: ...

    def release_engine(self) -> None: ...


class AnswerStream:
    """One answer: a single-use async context manager and iterator of events.

    Leaving the context early cancels the answer. Errors are raised by the
    iteration, after every event that came before, and carry `.partial`.
    """

    def __init__(
        self,
        request: AnswerRequest,
        lease: EngineLease,
        *,
        runner: Runner | None,
        transport: Transport | None,
        text: TextStream | None,
        pacing: Pacing,
    ) -> None:
        self._request = request
        self._lease = lease
        self._runner = runner
        self._transport = transport
        self._text = text
        self._pacing = pacing
        self._put, self._events = anyio.create_memory_object_stream[events.Event](math.inf)
        self._tasks: TaskGroup | None = None
        self._generation: Generation | None = None
        self._error: SegueError | None = None
        self._result: events.Result | None = None

    async def __aenter__(self) -> AnswerStream:
        if self._generation is not None:
            raise InvalidRequest("an answer stream can be entered once; call stream() again")
        if self._runner is not None:
            self._lease.claim_engine()
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
            if self._runner is not None:
                self._lease.release_engine()

    def __aiter__(self) -> AsyncIterator[events.Event]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[events.Event]:
        async for event in self._events:
            yield event
        if self._error is not None:
            raise self._error

    async def _run(self, generation: Generation) -> None:
        try:
            self._result = await generation.run()
            self._put.send_nowait(events.Done(self._result))
        except SegueError as error:
            self._error = error
        finally:
            self._put.close()

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

    def take_over(self) -> None:
        """Let the device take over as soon as it has caught up, whatever the credit."""
        if self._generation is not None:
            self._generation.take_over()
