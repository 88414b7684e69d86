"""Who owns which page of a pool that several processes share.

Every page has an owner word (0: nobody; else a reservation, whose lowest byte
names the process that made it) and, for every process that may attach, a count
of the writers that process has in the page. A page is free iff its owner word
and all its counts are 0: that is all the state there is, and a word that is
not 0 names the process that is to set it to 0. Whatever instruction a process
dies at, every page is free, owned or written to, and others can clear up.

Two questions are answered by locks that the kernel itself releases when their
holder dies (open file description locks): who may look for free pages now
(byte 0 of the file), and which processes live (a byte each).

Layout of ``words``, little-endian u64: the last reservation number, the owner
words, then a row of counts for every process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.memory import MemoryFile
from segue_protocol.errors import InternalError

# Two roles, each twice while one succeeds another, the one that watches over them, and spare.
PROCESSES = 8
# A reservation is its number in these units, plus the place of its process.
_NUMBER = 256
WORD_BYTES = 8

_MUTEX_BYTE = 0
_ALIVE_BYTE = 1  # of process 0
# struct flock of 64-bit Linux: type, whence, start, length, pid (0 for these locks)
_FLOCK = struct.Struct("@hhqqi4x")

Words = npt.NDArray[np.uint64]


def words_needed(pages: int) -> int:
    """Length of ``words`` for so many pages."""
    return 1 + pages + PROCESSES * pages


class SharedPages:
    """The pages as one process sees them, from the constructor to :meth:`close`.

    Used from one thread. Raises InternalError when more than :data:`PROCESSES`
    processes live, TransferError when the owner of `memory` does not.
    """

    def __init__(self, memory: MemoryFile, words: Words, pages: int) -> None:
        if len(words) != words_needed(pages):
            raise InternalError(f"{len(words)} words for {pages} pages")
        self._number = words[:1]
        self._owners = words[1 : 1 + pages]
        self._writers = words[1 + pages :].reshape(PROCESSES, pages)
        # Every second page first, as in a private pool: requests lie scattered.
        self._order = np.array([*range(0, pages, 2), *range(1, pages, 2)])
        self._closed = False
        self._locks = memory.open_again()
        try:
            with self._mutex():
                self.process = self._enter()
                self._clear(self.process)
        except BaseException:
            os.close(self._locks)
            raise

    # ---- queries

    @property
    def free_pages(self) -> int:
        """Pages that nobody owns and nobody writes to."""
        return int(self._are_free().sum())

    def check_owned(self, pages: Sequence[int]) -> None:
        """Raise InternalError unless exactly these, each once, belong to this process."""
        mine = np.flatnonzero(self._owners % _NUMBER == self.process + 1).tolist()
        if sorted(pages) != mine:
            raise InternalError(
                f"this process has reserved {len(pages)} pages and owns {len(mine)}: not the same"
            )

    # ---- commands

    def new_reservation(self) -> int:
        """A number that names one reservation of one process, never used before."""
        with self._mutex():
            self._set(self._number, 0, int(self._number[0]) + 1)
            return int(self._number[0]) * _NUMBER + self.process + 1

    def take(self, reservation: int, count: int) -> list[int] | None:
        """Make `count` free pages those of `reservation`; None, and no change, if they are short.

        What dead processes left is counted as free.
        """
        with self._mutex():
            found = self._order[self._are_free()[self._order]][:count]
            if len(found) < count:
                self._clear_dead()
                found = self._order[self._are_free()[self._order]][:count]
            if len(found) < count:
                return None
            pages: list[int] = found.tolist()
            for page in pages:
                self._set(self._owners, page, reservation)
            return pages

    def give_back(self, pages: Sequence[int]) -> None:
        """Own these pages no longer; they are free once nobody writes to them."""
        if self._closed:
            return  # given up with everything else
        with self._mutex():
            for page in pages:
                self._set(self._owners, page, 0)

    def pin(self, reservation: int, pages: Sequence[int]) -> bool:
        """Be a writer of these pages: until :meth:`unpin` they get no new owner.

        False, and no change, unless all of them belong to `reservation` now.
        """
        with self._mutex():
            for page in pages:
                if page >= len(self._owners) or int(self._owners[page]) != reservation:
                    return False
            self._count_writers(pages, 1)
            return True

    def unpin(self, pages: Sequence[int]) -> None:
        """Write to these pages no longer. Raises InternalError for one that is not pinned."""
        if self._closed:
            return
        if not self._writers[self.process, list(pages)].all():
            raise InternalError(f"not every one of the pages {list(pages)} is pinned here")
        with self._mutex():
            self._count_writers(pages, -1)

    def reclaim(self) -> int:
        """Free what dead processes owned or wrote to; how many pages became free."""
        with self._mutex():
            before = self.free_pages
            self._clear_dead()
            return self.free_pages - before

    def close(self) -> None:
        """Leave: pages and pins of this process are given up. May be called again."""
        if self._closed:
            return
        with self._mutex():
            self._clear(self.process)
        os.close(self._locks)
        self._closed = True

    # ---- helpers

    def _are_free(self) -> npt.NDArray[np.bool_]:
        free: npt.NDArray[np.bool_] = (self._owners == 0) & ~self._writers.any(axis=0)
        return free

    def _count_writers(self, pages: Sequence[int], change: int) -> None:
        row = self._writers[self.process]
        for page in pages:
            self._set(row, page, int(row[page]) + change)

    def _clear_dead(self) -> None:
        """The mutex is held: nobody enters meanwhile."""
        for process in range(PROCESSES):
            if process != self.process and self._try_lock(_ALIVE_BYTE + process):
                self._clear(process)
                self._lock(_ALIVE_BYTE + process, fcntl.F_UNLCK)

    def _clear(self, process: int) -> None:
        for page in np.flatnonzero(self._owners % _NUMBER == process + 1).tolist():
            self._set(self._owners, page, 0)
        for page in np.flatnonzero(self._writers[process]).tolist():
            self._set(self._writers[process], page, 0)

    def _set(self, words: Words, place: int, value: int) -> None:
        """Every write there is: one aligned word, which the processor stores whole."""
        words[place] = value

    # ---- locks

    def _enter(self) -> int:
        for process in range(PROCESSES):
            if self._try_lock(_ALIVE_BYTE + process):
                return process
        raise InternalError(f"{PROCESSES} processes use this pool already")

    @contextmanager
    def _mutex(self) -> Iterator[None]:
        self._lock(_MUTEX_BYTE, fcntl.F_WRLCK, fcntl.F_OFD_SETLKW)
        try:
            yield
        finally:
            self._lock(_MUTEX_BYTE, fcntl.F_UNLCK)

    def _try_lock(self, byte: int) -> bool:
        try:
            self._lock(byte, fcntl.F_WRLCK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def _lock(self, byte: int, kind: int, command: int = fcntl.F_OFD_SETLK) -> None:
        fcntl.fcntl(self._locks, command, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
