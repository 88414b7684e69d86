"""The door of a worker: counts who is inside, closes for a drain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from segue_protocol.errors import Overloaded

RETRY_S = 0.02


class Intake:
    """Every stream that may hold a slot or pages is inside while it lives."""

    def __init__(self) -> None:
        self._inside = 0
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Let nobody in any more. Idempotent."""
        self._closed = True

    async def empty(self) -> None:
        """Wait until nobody is inside."""
        await self._empty.wait()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside. Raises Overloaded, so that the gateway asks elsewhere, when closed."""
        if self._closed:
            raise Overloaded(
                "this worker drains; offer the request elsewhere",
                reason="DRAINING",
                retry_after_s=RETRY_S,
            )
        self._inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()
