"""The cloud's copy of one answer's log.

It lives in the gateway: a worker's token is appended iff its epoch is current
and its index is the next one; anything else is dropped and counted. Every new
assignment raises the epoch, so a worker that was frozen and wakes up cannot
write (DESIGN 1).
"""

from __future__ import annotations

from collections.abc import Sequence


class CloudLog:
    """Append-only token ids with one current writer.

    A takeover truncates the copy: what lies behind the takeover index was
    never part of the answer, the device has written its own entries there.
    """

    def __init__(self, prefix: Sequence[int] = ()) -> None:
        self._ids = list(prefix)
        self._logprobs: list[float] = []  # of what lies behind the prefix
        self.prefix_length = len(self._ids)
        self.epoch = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Sequence[int]:
        return self._ids

    def begin_epoch(self) -> int:
        """Shut out every earlier writer; returns the new writer's epoch."""
        self.epoch += 1
        return self.epoch

    def logprobs(self, start: int) -> Sequence[float]:
        """Of the ids from `start` on; [] where some are of the prefix, whose maker kept them."""
        behind = start - self.prefix_length
        return self._logprobs[behind:] if behind >= 0 else []

    def append(self, epoch: int, index: int, ids: Sequence[int], logprobs: Sequence[float]) -> bool:
        """Append ids at index; False (dropped and counted) for a wrong writer or place."""
        if epoch != self.epoch or index != len(self._ids):
            self.dropped += len(ids)
            return False
        self._ids.extend(ids)
        self._logprobs.extend(logprobs)
        return True

    def truncate(self, length: int) -> int:
        """Forget entries from `length` on and shut out the writer; returns how many."""
        forgotten = len(self._ids) - length
        del self._ids[length:]
        del self._logprobs[max(0, length - self.prefix_length) :]
        self.begin_epoch()
        return forgotten
