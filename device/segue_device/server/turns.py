"""Whose turn it is: one engine, many clients, first come, first served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from segue_protocol.errors import Overloaded, Unavailable

# A guess: answers take seconds.
RETRY_AFTER_S = 1.0


class Turns:
    """A bounded queue. Waiting happens here; a client that leaves gives up its place."""

    def __init__(self, *, running: int, waiting: int) -> None:
        """At most `running` requests have their turn and `waiting` more wait for it."""
        self._limit = running
        self._waiting_limit = waiting
        self._free = anyio.Semaphore(running)
        self._scopes: set[anyio.CancelScope] = set()
        self._closed = False

    @property
    def running(self) -> int:
        return self._limit - self._free.value

    @property
    def waiting(self) -> int:
        return self._free.statistics().tasks_waiting

    @property
    def closed(self) -> bool:
        return self._closed

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and have it for the length of the block.

        Raises Overloaded at once where too many wait, Unavailable when `close`
        ends the waiting or the block.
        """
        if self._closed:
            raise _closing()
        if self._free.value == 0 and self.waiting >= self._waiting_limit:
            raise Overloaded(
                f"{self.running} requests are being answered and {self.waiting} wait already; "
                "ask again later",
                reason="QUEUE_FULL",
                retry_after_s=RETRY_AFTER_S,
            )
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with self._free:
                    yield
            finally:
                self._scopes.remove(scope)
        if scope.cancelled_caught:
            raise _closing()

    def close(self) -> None:
        """Nobody has or gets a turn any more."""
        self._closed = True
        for scope in self._scopes:
            scope.cancel()

    def check_integrity(self) -> None:
        """Raise AssertionError unless everything is back to zero."""
        assert not self._scopes, f"{len(self._scopes)} requests hold or await a turn"
        assert self.running == 0, f"{self.running} turns were not given back"
        assert self.waiting == 0, f"{self.waiting} requests wait"


def _closing() -> Unavailable:
    return Unavailable("this server is ending; ask another one", reason="SERVER_ENDING")
