"""One request in the decode worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from enum import Enum, auto

from segue_cloud.engine.base import Chunk
from segue_cloud.kv.pages import PageTable
from segue_protocol.sampling import Sampling
from segue_protocol.wire import private, public


class Phase(Enum):
    """RUNNING: in the batch. PARKED: out of credit, pages evictable. OVER: no more steps."""

    RUNNING = auto()
    PARKED = auto()
    OVER = auto()


@dataclass(eq=False)
class Sequence:
    """State of one request between two decode steps."""

    epoch: int
    prompt_ids: SequenceOf[int]
    output_ids: list[int]
    sampling: Sampling
    credit_through: int
    max_tokens: int
    table: PageTable
    phase: Phase = Phase.PARKED
    events: asyncio.Queue[private.DecodeResponse] = field(default_factory=asyncio.Queue)

    @property
    def limit(self) -> int:
        """First output index that may not be produced now."""
        return min(self.credit_through, self.max_tokens)

    @property
    def over(self) -> bool:
        return self.phase is Phase.OVER

    @property
    def has_credit(self) -> bool:
        return len(self.output_ids) < self.limit

    def chunk(self) -> Chunk:
        """The next step: the newest token goes in, its successor comes out."""
        length = len(self.prompt_ids) + len(self.output_ids)
        return Chunk([self.output_ids[-1]], [length - 1], self.table.cells(length))

    def finish_reason(self) -> public.FinishReason | None:
        """Why the sequence is complete, if it is."""
        if self.output_ids[-1] in self.sampling.stop_token_ids:
            return public.FINISH_REASON_STOP
        if len(self.output_ids) >= self.max_tokens:
            return public.FINISH_REASON_LENGTH
        return None
