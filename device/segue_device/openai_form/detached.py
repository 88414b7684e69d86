"""An answer that a task of its own holds open.

An :class:`AnswerStream` belongs to one block of code. OpenAI's interface hands
a stream out of `create`, to be read and closed anywhere, or to be dropped: the
answer's block then has to live in a task that nobody else depends on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import anyio

from segue_device.answer_stream import AnswerStream
from segue_device.events import Event
from segue_protocol.errors import Cancelled


@dataclass(frozen=True, slots=True)
class _End:
    """After the last event; `error` is the answer's."""

    error: Exception | None


_Events = asyncio.Queue[Event | _End]

# asyncio itself holds its tasks only weakly.
_tasks: set[asyncio.Task[None]] = set()


class DetachedAnswer:
    """Made by `open`, in a running asyncio loop. One that is dropped is cancelled."""

    def __init__(self, answer: AnswerStream) -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._events = _Events()
        self._opened: asyncio.Future[Exception | None] = self._loop.create_future()
        self._task = asyncio.create_task(_hold(answer, self._opened, self._events))
        _tasks.add(self._task)
        self._task.add_done_callback(_tasks.discard)

    @classmethod
    async def open(cls, answer: AnswerStream) -> DetachedAnswer:
        """Begin the answer. Raises what entering the stream raises."""
        detached = cls(answer)
        try:
            error = await asyncio.shield(detached._opened)
        except BaseException:
            detached._task.cancel()  # it may not have begun, so that `close` would miss it
            await detached._ended()
            raise
        if error is not None:
            raise error
        return detached

    async def next_event(self) -> Event | None:
        """The next event; None after the last one. Raises the answer's error.

        At the end, with or without an error, the engine is free.
        """
        item = await self._events.get()
        if not isinstance(item, _End):
            return item
        self._events.put_nowait(_End(None))
        if item.error is not None:
            raise item.error
        return None

    async def close(self) -> None:
        """Cancel what is not finished and wait until the engine is free. Idempotent."""
        self._answer.cancel()
        await self._ended()

    async def _ended(self) -> None:
        with anyio.CancelScope(shield=True):
            await asyncio.wait({self._task})

    def __del__(self) -> None:
        if not self._task.done():
            with suppress(RuntimeError):  # the loop is closed, its answers with it
                self._loop.call_soon_threadsafe(self._answer.cancel)


async def _hold(
    answer: AnswerStream, opened: asyncio.Future[Exception | None], out: _Events
) -> None:
    """No reference leads from here to the reader, so that a dropped one is noticed."""
    error: Exception | None = Cancelled("the event loop ended before the answer did")
    try:
        async with answer:
            opened.set_result(None)
            async for event in answer:
                out.put_nowait(event)
        error = None
    except Exception as raised:  # whatever it is, the reader raises it
        error = raised
    finally:
        if opened.done():
            out.put_nowait(_End(error))
        else:
            opened.set_result(error)
