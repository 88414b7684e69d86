"""The log of one answer: what both machines said, in order, with who said it.

Append-only, indexed from 0, gap-free, one writer at a time: first the cloud,
from the takeover index on the device.
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
    """One token. `t_received_s` is on the device's clock."""

    index: int
    token_id: int
    source: Source
    t_received_s: float


class TokenLog:
    """See the module. Readers keep cursors of their own."""

    def __init__(self, writer: Source = Source.CLOUD) -> None:
        self._entries: list[Entry] = []
        self._ids: list[int] = []
        self.writer = writer
        self.takeover_index: int | None = None
        self.discarded = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    @property
    def ids(self) -> Sequence[int]:
        return self._ids

    def append_from_cloud(self, index: int, ids: Sequence[int], now_s: float) -> None:
        """Append, or count as discarded once the device writes.

        Raises ProtocolError on a gap or a rewrite.
        """
        if self.writer is not Source.CLOUD:
            self.discarded += len(ids)
            return
        if index != len(self):
            raise ProtocolError(
                f"the cloud sent tokens from index {index}, expected {len(self)}: "
                "the log has no gaps and nobody rewrites an entry"
            )
        for token in ids:
            self._append(token, Source.CLOUD, now_s)

    def append_from_device(self, token_id: int, now_s: float) -> None:
        """Append the device's next token. Raises InternalError before the takeover."""
        if self.writer is not Source.DEVICE:
            raise InternalError("the device wrote to the log before its takeover")
        self._append(token_id, Source.DEVICE, now_s)

    def take_over(self) -> int:
        """Make the device the writer; returns the takeover index."""
        if self.takeover_index is not None:
            raise InternalError("a log can be taken over once")
        self.writer = Source.DEVICE
        self.takeover_index = len(self)
        return self.takeover_index

    def count(self, source: Source) -> int:
        """How many tokens one side made."""
        return sum(entry.source is source for entry in self._entries)

    def _append(self, token_id: int, source: Source, now_s: float) -> None:
        self._entries.append(Entry(len(self), token_id, source, now_s))
        self._ids.append(token_id)
