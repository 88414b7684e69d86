"""An answer that is kept while it is made: readers come and go, and begin anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
from anyio.abc import TaskStatus

from demos.chat.device import Device
from demos.chat.event_json import error_json, event_json, progress_json
from segue_device import AnswerStream
from segue_protocol.errors import SegueError

SAMPLE_S = 0.1

EventJson = Mapping[str, Any]


class RecordedAnswer:
    """Every event of one answer, as JSON with `atS`, its moment in seconds from the start."""

    def __init__(self, device: Device, stream: AnswerStream) -> None:
        self._device = device
        self._stream = stream
        self._events: list[EventJson] = []
        self._over = False
        self._changed = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Make the answer to its end, whoever reads.

        What keeps it from beginning is raised before `task_status` is set; what
        happens later is its last event.
        """
        with self._device.held_by(self._stream):
            self._started_s = anyio.current_time()
            async with self._stream, anyio.create_task_group() as tasks:
                task_status.started()
                tasks.start_soon(self._sample)
                await self._follow()
                tasks.cancel_scope.cancel()
        self._over = True
        self._notify()

    def stop(self) -> None:
        """End it now. Idempotent."""
        self._stream.cancel()

    async def read(self, start: int = 0) -> AsyncIterator[EventJson]:
        """Events from the `start`-th on, those that are there and those to come."""
        while True:
            for event in self._events[start:]:
                start += 1
                yield event
            if start < len(self._events):
                continue
            if self._over:
                return
            await self._changed.wait()

    async def _follow(self) -> None:
        try:
            async for event in self._stream:
                self._add(event_json(event))
        except SegueError as error:
            self._add(error_json(error))

    async def _sample(self) -> None:
        """What no event tells: how much was received but not shown, how far the device lags."""
        last = None
        while True:
            progress = self._stream.progress
            if progress != last:
                self._add(progress_json(progress))
                last = progress
            await anyio.sleep(SAMPLE_S)

    def _add(self, event: EventJson) -> None:
        self._events.append({**event, "atS": round(anyio.current_time() - self._started_s, 4)})
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
