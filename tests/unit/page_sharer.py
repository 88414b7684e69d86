"""A process that takes, pins and frees shared pages until it ends itself at a given write.

Run as a module with the pool's place, the number of the write and the signal;
:func:`attached` is what both sides attach with.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from segue_cloud.kv.memory import MemoryFile
from segue_cloud.kv.shared_pages import WORD_BYTES, SharedPages, words_needed

ROOT = Path(__file__).parents[2]
PAGES = 6


def memory_for(pages: int) -> MemoryFile:
    return MemoryFile.create(slots=1, data_bytes=WORD_BYTES * words_needed(pages))


def attached(memory: MemoryFile, pages: int = PAGES, kind: type[SharedPages] = SharedPages):
    return kind(memory, memory.data.view("<u8"), pages)


def start_sharer(memory: MemoryFile, at_write: int, number: signal.Signals) -> subprocess.Popen:
    """It prints a line before it begins."""
    place = [str(memory.pid), str(memory.descriptor), memory.incarnation.hex()]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.page_sharer", *place, str(at_write), str(int(number))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )


class _Mortal(SharedPages):
    """Sends itself the signal instead of making its n-th write."""

    writes_left = -1
    number = signal.SIGKILL

    def _set(self, words, place, value):
        _Mortal.writes_left -= 1
        if _Mortal.writes_left == 0:
            os.kill(os.getpid(), self.number)
        super()._set(words, place, value)


def main() -> None:
    pid, descriptor, incarnation, at_write, number = sys.argv[1:]
    memory = MemoryFile.attach(int(pid), int(descriptor), bytes.fromhex(incarnation), writable=True)
    pages = attached(memory, kind=_Mortal)
    print(flush=True)
    _Mortal.writes_left, _Mortal.number = int(at_write), signal.Signals(int(number))
    reservation = pages.new_reservation()
    taken = pages.take(reservation, 3)
    assert taken is not None
    pages.pin(reservation, taken)
    pages.give_back(taken)
    pages.unpin(taken)


if __name__ == "__main__":
    main()
