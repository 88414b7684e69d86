"""An event loop whose clock jumps: minutes run in milliseconds, without a sleep."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# A real clock moves while code runs. One that stood still would let a task wait for ever
# for a moment that is less than a rounding error away: after so many turns it moves too.
TURNS_AT_ONE_MOMENT = 10_000
STEP_S = 1e-9


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: when nothing is ready, the clock moves to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("deadlock: nothing is ready and no timer is set")
        if not ready and timeout:
            self.now_s += timeout
            self._turns = 0
        else:
            self._turns += 1
            if self._turns > TURNS_AT_ONE_MOMENT:
                self.now_s += STEP_S
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Deterministic: code must not use threads or sockets on it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def hold_up(self, seconds: float) -> None:
        """Let time pass in which this loop does nothing, as if the process was frozen."""
        self._jumping.now_s += seconds


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on a virtual clock."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
