"""The clock of the replay: what happens next, and everything that happens in order."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

Action = Callable[[], None]


class Events:
    """Runs actions at their moments; those of one moment in the order they were asked for."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, Action]] = []
        self._turn = itertools.count()

    def at(self, at_s: float, action: Action) -> None:
        """Run `action` at `at_s`, or now if that has passed."""
        heapq.heappush(self._queue, (max(at_s, self.now_s), next(self._turn), action))

    def run(self) -> None:
        """Until nothing is left to happen."""
        queue = self._queue
        while queue:
            self.now_s, _, action = heapq.heappop(queue)
            action()


class Alarm:
    """One moment that may be moved or called off; the last setting counts."""

    def __init__(self, events: Events, action: Action) -> None:
        self._events = events
        self._action = action
        self._setting = 0

    def set(self, at_s: float) -> None:
        """Ring at `at_s`, and at no moment set before."""
        self._setting += 1
        setting = self._setting
        self._events.at(at_s, lambda: self._ring(setting))

    def off(self) -> None:
        """Do not ring."""
        self._setting += 1

    def _ring(self, setting: int) -> None:
        if setting == self._setting:
            self._setting += 1
            self._action()
