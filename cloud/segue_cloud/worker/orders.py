"""When a process is to end: signals, and the end of who started it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Orders:
    """`leave`: drain first. `at_once`: somebody is in a hurry, or nobody is there any more."""

    leave: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: asyncio.Event = field(default_factory=asyncio.Event)

    def signalled(self) -> None:
        """The first SIGTERM or SIGINT asks to leave, the second insists."""
        (self.at_once if self.leave.is_set() else self.leave).set()


def orders_of_process() -> Orders:
    """Take signals from now on, and notice when the parent's end of standard input closes."""
    loop = asyncio.get_running_loop()
    orders = Orders()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, orders.signalled)

    def watch_parent() -> None:
        # A pipe closes when its last holder ends, however it ends.
        # (Not through sys.stdin: its lock would be held here at interpreter exit.)
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(orders.at_once.set)

    # A worker started by hand has a terminal or /dev/null there, which say nothing.
    mode = os.fstat(0).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        threading.Thread(target=watch_parent, name="segue-parent", daemon=True).start()
    return orders


async def first_of(tasks: Collection[asyncio.Future[Any]]) -> set[asyncio.Future[Any]]:
    """Wait for the first to end; raise what it raises, else tell which have ended."""
    done: set[asyncio.Future[Any]]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return done
