"""The waiting line of one group: who may offer itself to workers next.

Waiting happens at the gateway and nowhere else, so this is where tenants share
a cluster: the next turn goes to the tenant that was served the fewest prompt
tokens, and within a tenant to who came last: where some must miss the target
for the first token, those who came first would take the others with them. Only
the first in line makes offers; the others cost nothing while they wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Place:
    """One request's place. Clear, look, then wait: no wake-up in between is lost."""

    def __init__(self, line: FairLine, tenant: str, tokens: int) -> None:
        self.tenant = tenant
        self.tokens = tokens
        self._line = line
        self._woken = asyncio.Event()

    @property
    def is_first(self) -> bool:
        return self._line.first is self

    def clear(self) -> None:
        """Forget earlier wake-ups."""
        self._woken.clear()

    def wake(self) -> None:
        """Something may have changed for this request."""
        self._woken.set()

    async def woken(self, within_s: float | None) -> bool:
        """Wait for a wake-up since the last `clear`; False when the time is over first."""
        with anyio.move_on_after(within_s):
            await self._woken.wait()
            return True
        return False


class FairLine:
    """Places by tenant. Used from one event loop; no step of it waits."""

    def __init__(self) -> None:
        self.first: Place | None = None
        self._urgent: deque[Place] = deque()
        self._waiting: dict[str, deque[Place]] = {}
        # Prompt tokens by tenant, never behind the clock while it waits.
        self._served: dict[str, int] = {}
        self._clock = 0

    def __len__(self) -> int:
        """Requests in the line, the first included."""
        behind = len(self._urgent) + sum(len(places) for places in self._waiting.values())
        return behind + (self.first is not None)

    @contextmanager
    def place(self, tenant: str, tokens: int, *, urgent: bool = False) -> Iterator[Place]:
        """Stand in line with `tokens` to prefill; an urgent request goes ahead of the others."""
        place = self.join(tenant, tokens, urgent=urgent)
        try:
            yield place
        finally:
            self.leave(place)

    def join(self, tenant: str, tokens: int, *, urgent: bool = False) -> Place:
        """See `place`; whoever joins leaves."""
        place = Place(self, tenant, tokens)
        if urgent:
            self._urgent.append(place)
        else:
            self._waiting.setdefault(tenant, deque()).append(place)
            if len(self._waiting[tenant]) == 1:
                # What a tenant did not use while it was away is not saved up.
                self._served[tenant] = max(self._served.get(tenant, 0), self._clock)
        self._advance()
        return place

    def leave(self, place: Place) -> None:
        """Give up a place, served or not."""
        if self.first is place:
            self.first = None
        elif place in self._urgent:
            self._urgent.remove(place)
        else:
            self._drop(place)
        self._advance()

    def wake_first(self) -> None:
        """A slot or pages may be free."""
        if self.first is not None:
            self.first.wake()

    def wake_all(self) -> None:
        """Workers came or went."""
        self.wake_first()
        for places in (self._urgent, *self._waiting.values()):
            for place in places:
                place.wake()

    def _advance(self) -> None:
        if self.first is not None:
            return
        if self._urgent:
            self.first = self._urgent.popleft()
        elif self._waiting:
            tenant = min(self._waiting, key=self._served.__getitem__)
            self.first = self._waiting[tenant].pop()
            self._forget_if_empty(tenant)
            self._clock = self._served[tenant]
            self._served[tenant] += self.first.tokens
        self.wake_first()

    def _drop(self, place: Place) -> None:
        self._waiting[place.tenant].remove(place)
        self._forget_if_empty(place.tenant)

    def _forget_if_empty(self, tenant: str) -> None:
        if not self._waiting[tenant]:
            del self._waiting[tenant]
