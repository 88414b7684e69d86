"""A prefill instance: slots, no queue beyond them, one prompt at a time (P/D-Serve)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from demos.trace.events import Events
from segue_cloud.profiles.base import CloudProfile


@dataclass(eq=False, slots=True)
class Prefilling:
    """One prompt in a slot: when the kept list is there, and when the first token is."""

    tokens: int
    listed: Callable[[], None] | None
    done: Callable[[], None]
    seconds: float = field(default=0.0, init=False)
    abandoned: bool = field(default=False, init=False)


class PrefillInstance:
    """The accelerator and its slots. A slot is held until the KV has been pulled."""

    def __init__(
        self, events: Events, profile: CloudProfile, *, slots: int, list_share: float
    ) -> None:
        self.busy_s = 0.0
        self._events = events
        self._profile = profile
        self._list_share = list_share
        self._free = slots
        self._waiting: deque[Prefilling] = deque()
        self._running: Prefilling | None = None

    @property
    def free_slots(self) -> int:
        return self._free

    def accept(self, prompt: Prefilling) -> None:
        """Take a slot; whoever does has seen a free one."""
        assert self._free > 0
        self._free -= 1
        self._waiting.append(prompt)
        self._next()

    def release(self) -> None:
        """Give the slot of a prompt back that is done."""
        self._free += 1

    def abandon(self, prompt: Prefilling) -> bool:
        """Forget a prompt that is not done; True if its slot is free now.

        One that runs holds its slot to the end of its pass, then `done` is called all the
        same.
        """
        prompt.abandoned = True
        if prompt in self._waiting:
            self._waiting.remove(prompt)
            self.release()
            return True
        return False

    def _next(self) -> None:
        if self._running is not None or not self._waiting:
            return
        prompt = self._running = self._waiting.popleft()
        began_s = self._events.now_s
        prompt.seconds = self._profile.prefill_s([prompt.tokens])
        if prompt.listed is not None:
            self._events.at(began_s + self._list_share * prompt.seconds, prompt.listed)
        self._events.at(began_s + prompt.seconds, self._ended)

    def _ended(self) -> None:
        prompt = self._running
        assert prompt is not None
        self._running = None
        self.busy_s += prompt.seconds
        prompt.done()
        self._next()
