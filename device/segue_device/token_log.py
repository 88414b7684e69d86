"""The log of one answer: what both machines said, in order, with who said it.

Append-only, indexed from 0, gap-free, one writer at a time: first the cloud,
from the takeover index on the device. Only a device that cannot go on gives
the log back to the cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from segue_protocol.errors import InternalError, ProtocolError


class Source(str, Enum):
    """Who made a token."""

    CLOUD = "cloud"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Entry:
    """One token. `t_received_s` is on the device's clock, `logprob` its maker's, if told."""

    index: int
    token_id: int
    source: Source
    t_received_s: float
    logprob: float | None


class TokenLog:
    """See the module. Readers keep cursors of their own."""

    def __init__(self, writer: Source = Source.CLOUD) -> None:
        self._entries: list[Entry] = []
        self._ids: list[int] = []
        self.writer = writer
        self.takeovers: list[int] = []
        self.discarded = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    @property
    def ids(self) -> Sequence[int]:
        return self._ids

    @property
    def takeover_index(self) -> int | None:
        """Where the device first took over."""
        return self.takeovers[0] if self.takeovers else None

    def append_from_cloud(
        self, index: int, token_id: int, now_s: float, logprob: float | None = None
    ) -> None:
        """Append the cloud's next token. Raises ProtocolError on a gap or a rewrite."""
        if self.writer is not Source.CLOUD:
            raise InternalError("the cloud wrote to the log after the takeover")
        if index != len(self):
            raise ProtocolError(
                f"the cloud sent tokens from index {index}, expected {len(self)}: "
                "the log has no gaps and nobody rewrites an entry"
            )
        self._append(token_id, Source.CLOUD, now_s, logprob)

    def append_from_device(self, token_id: int, now_s: float, logprob: float | None = None) -> None:
        """Append the device's next token. Raises InternalError before the takeover."""
        if self.writer is not Source.DEVICE:
            raise InternalError("the device wrote to the log before its takeover")
        self._append(token_id, Source.DEVICE, now_s, logprob)

    def take_over(self) -> int:
        """Make the device the writer; returns the takeover index."""
        if self.writer is Source.DEVICE:
            raise InternalError("the device took over a log that it writes already")
        self.writer = Source.DEVICE
        self.takeovers.append(len(self))
        return len(self)

    def give_back(self) -> None:
        """Make the cloud the writer again: this device cannot go on."""
        if self.writer is Source.CLOUD:
            raise InternalError("the device gave back a log that it does not write")
        self.writer = Source.CLOUD

    def count(self, source: Source) -> int:
        """How many tokens one side made."""
        return sum(entry.source is source for entry in self._entries)

    def _append(self, token_id: int, source: Source, now_s: float, logprob: float | None) -> None:
        self._entries.append(Entry(len(self), token_id, source, now_s, logprob))
        self._ids.append(token_id)
