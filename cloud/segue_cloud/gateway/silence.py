"""Noticing that nothing has come for a while, at no cost to what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from segue_protocol.errors import DeadlineExceeded

# How late a timer is, as a share of its time, when its process was frozen.
HELD_UP_SHARE = 0.5


class Silence:
    """Calls `tell` whenever `after_s` have passed since the last :meth:`heard`; within a `with`.

    A stream of tokens would set and cancel a timer a token; here one timer
    runs, and moves itself on when it finds that something was heard meanwhile.
    A timer that comes late says that this process itself was held up. Who judges
    others by their silence is `forgiving` then: what they sent may lie unread, so the
    silence begins anew.
    """

    def __init__(
        self, after_s: float, tell: Callable[[], object], *, forgiving: bool = False
    ) -> None:
        self._after_s = after_s
        self._forgiving = forgiving
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Silence:
        self.expect(True)
        return self

    def __exit__(self, *_: object) -> None:
        self.expect(False)

    def heard(self) -> None:
        """Something came: the silence begins anew."""
        self._heard_s = self._loop.time()

    def expect(self, expected: bool) -> None:
        """Whether silence means anything now. Begins anew when it does."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if expected:
            self.heard()
            self._wait()

    def _wait(self) -> None:
        due_s = self._heard_s + self._after_s
        self._timer = self._loop.call_at(due_s, self._due, due_s)

    def _due(self, due_s: float) -> None:
        held_up = self._loop.time() - due_s > HELD_UP_SHARE * self._after_s
        if self._heard_s + self._after_s <= due_s:
            self.heard()
            if not (held_up and self._forgiving):
                self._tell()
        if self._timer is not None:  # `tell` may have ended it
            self._wait()


@contextmanager
def unless_silent(name: str, within_s: float) -> Iterator[Silence]:
    """Cancel the block and raise DeadlineExceeded when `name` was silent for so long."""
    with anyio.CancelScope() as scope:
        with Silence(within_s, scope.cancel, forgiving=True) as silence:
            yield silence
    if scope.cancelled_caught:
        raise DeadlineExceeded(f"{name} was silent for {within_s} s")
