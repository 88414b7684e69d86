"""The continuous batch of a decode worker: schedule, run, postprocess."""

from __future__ import annotations

import asyncio
from collections import deque

from segue_cloud.engine.base import Chunk, CloudEngine
from segue_cloud.kv.pages import PagePool
from segue_cloud.worker.compute import Compute
from segue_cloud.worker.sequence import Phase, Sequence
from segue_protocol.sampling import Sampled, sample
from segue_protocol.wire import private


class Batch:
    """All sequences of one worker. Runs one token of each per step.

    Sequences join and leave between steps. Pages are pinned during a step: those
    of a sequence that leaves meanwhile are still written to.
    """

    def __init__(
        self, engine: CloudEngine, pool: PagePool, compute: Compute, *, max_batch: int
    ) -> None:
        self.engine = engine
        self.pool = pool
        self.max_batch = max_batch
        self.steps = 0
        self.decoded_tokens = 0
        self._compute = compute
        self._running: deque[Sequence] = deque()
        self._parked: dict[Sequence, None] = {}  # insertion order: oldest first
        self._work = asyncio.Event()

    # ---- queries

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def parked(self) -> int:
        return len(self._parked)

    # ---- commands

    def add(self, sequence: Sequence) -> None:
        """Take in a sequence whose cells are filled; without credit it is parked at once."""
        if sequence.has_credit:
            self._start(sequence)
        else:
            self._park(sequence)

    def raise_credit(self, sequence: Sequence) -> None:
        """Let a parked sequence go on if its credit now allows it."""
        if sequence.phase is Phase.PARKED and sequence.has_credit:
            del self._parked[sequence]
            self._start(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out for good and free its pages. Idempotent."""
        if sequence.over:
            return
        if sequence.phase is Phase.RUNNING:
            self._running.remove(sequence)
        self._parked.pop(sequence, None)
        sequence.phase = Phase.OVER
        self.pool.free(sequence.table)

    def evict_oldest_parked(self, spare: Sequence | None) -> bool:
        """Give up the pages of the request that has been parked longest, `spare` excepted."""
        for sequence in self._parked:
            if sequence is spare:
                continue
            self._evict(sequence)
            return True
        return False

    def evict_all(self) -> None:
        """Give up every request: others go on with it from its log."""
        for sequence in [*self._running, *self._parked]:
            self._evict(sequence)

    # ---- the loop

    async def run(self) -> None:
        """Schedule, run, postprocess; for ever."""
        while True:
            batch = self._schedule()
            if not batch:
                self._work.clear()
                await self._work.wait()
                continue
            chunks = [sequence.chunk() for sequence in batch]
            for sequence in batch:
                sequence.table.pin()
            try:
                tokens = await self._compute.run(self._step, batch, chunks)
            finally:
                for sequence in batch:
                    sequence.table.unpin()
            self._postprocess(batch, tokens)

    def _schedule(self) -> list[Sequence]:
        batch = [self._running[i] for i in range(min(self.max_batch, len(self._running)))]
        self._running.rotate(-len(batch))  # more sequences than places take turns
        return batch

    def _step(self, batch: list[Sequence], chunks: list[Chunk]) -> list[Sampled]:
        logits = self.engine.forward(self.pool.cells, chunks)
        return [
            sample(
                row,
                sequence.sampling,
                prompt_ids=sequence.prompt_ids,
                output_ids=sequence.output_ids,
                index=len(sequence.output_ids),
            )
            for row, sequence in zip(logits, batch, strict=True)
        ]

    def _postprocess(self, batch: list[Sequence], tokens: list[Sampled]) -> None:
        self.steps += 1
        for sequence, token in zip(batch, tokens, strict=True):
            if sequence.phase is not Phase.RUNNING:
                continue  # removed while the step ran
            self.decoded_tokens += 1
            sequence.events.put_nowait(
                private.DecodeResponse(
                    tokens=private.DecodedTokens(
                        epoch=sequence.epoch,
                        index=len(sequence.output_ids),
                        ids=[token.token_id],
                        logprobs=[token.logprob],
                    )
                )
            )
            sequence.output_ids.append(token.token_id)
            reason = sequence.finish_reason()
            if reason is not None:
                self.remove(sequence)
                sequence.events.put_nowait(
                    private.DecodeResponse(ended=private.Ended(reason=reason))
                )
            elif not sequence.has_credit:
                self._running.remove(sequence)
                self._park(sequence)

    # ---- helpers

    def _start(self, sequence: Sequence) -> None:
        sequence.phase = Phase.RUNNING
        self._running.append(sequence)
        self._work.set()

    def _park(self, sequence: Sequence) -> None:
        sequence.phase = Phase.PARKED
        self._parked[sequence] = None
        parked = private.Parked(length=len(sequence.output_ids))
        sequence.events.put_nowait(private.DecodeResponse(parked=parked))

    def _evict(self, sequence: Sequence) -> None:
        sequence.events.put_nowait(private.DecodeResponse(evicted=private.Evicted()))
        self.remove(sequence)
