"""The continuous batch of a worker that decodes: schedule, run, postprocess.

In an aggregated worker prompts go through it too, in chunks beside the decodes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

from segue_cloud.engine.base import Chunk, CloudEngine
from segue_cloud.engine.checks import check_tokens
from segue_cloud.kv.pages import PagePool, PageTable
from segue_cloud.worker.compute import Compute
from segue_cloud.worker.prompt import Logits, Prompt
from segue_cloud.worker.schedule import prompt_chunks
from segue_cloud.worker.sequence import Phase, Sequence
from segue_protocol.errors import InvalidRequest
from segue_protocol.sampling import Sampled, sample
from segue_protocol.wire import private


@dataclass(slots=True)
class _Step:
    """What one iteration computes: a token of every sequence, and a chunk of some prompts."""

    sequences: list[Sequence]
    prompts: list[tuple[Prompt, int]]

    @property
    def tables(self) -> list[PageTable]:
        holders: list[Sequence | Prompt] = [*self.sequences, *(each for each, _ in self.prompts)]
        return [holder.table for holder in holders]

    def chunks(self) -> list[Chunk]:
        prefills = [prompt.chunk(tokens) for prompt, tokens in self.prompts]
        return [*(sequence.chunk() for sequence in self.sequences), *prefills]


class Batch:
    """All sequences of one worker, and its prompts. Runs one token of each sequence per step.

    Sequences join and leave between steps. Pages are pinned during a step: those
    of a sequence that leaves meanwhile are still written to.
    """

    def __init__(
        self,
        engine: CloudEngine,
        pool: PagePool,
        compute: Compute,
        *,
        max_batch: int,
        iteration_tokens: int = 0,
    ) -> None:
        """`iteration_tokens`: the most of one step, decodes and prompts; 0: no prompts here.

        Raises InvalidRequest for so few that a full batch would keep every prompt out.
        """
        if 0 < iteration_tokens <= max_batch:
            raise InvalidRequest(
                f"iteration_tokens is {iteration_tokens} and max_batch {max_batch}: a full batch "
                "leaves no token for prompts; raise the one or lower the other"
            )
        self.engine = engine
        self.pool = pool
        self.max_batch = max_batch
        self.steps = 0
        self.decoded_tokens = 0
        self.prefilled_tokens = 0
        self.iteration_tokens = iteration_tokens
        self._compute = compute
        self._running: deque[Sequence] = deque()
        self._parked: dict[Sequence, None] = {}  # insertion order: oldest first
        self._prompts: dict[Prompt, None] = {}  # first come, first served
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

    async def prefill(self, token_ids: SequenceOf[int], done: int, table: PageTable) -> Logits:
        """Compute the K/V of all tokens behind the first `done` into the cells of `table`.

        Returns the logits after the last, [vocab]. A cancelled prompt is out from
        the next step on. Raises InvalidRequest for an id outside the vocabulary,
        ContextTooLong for too many.
        """
        check_tokens(
            token_ids,
            range(len(token_ids)),
            vocab_size=self.engine.identity.vocab_size,
            max_context_tokens=self.engine.max_context_tokens,
        )
        prompt = Prompt(token_ids, done, table)
        self._prompts[prompt] = None
        self._work.set()
        try:
            return await prompt.logits
        finally:
            self._prompts.pop(prompt, None)

    # ---- the loop

    async def run(self) -> None:
        """Schedule, run, postprocess; for ever."""
        while True:
            step = self._schedule()
            if not step.tables:
                self._work.clear()
                await self._work.wait()
                continue
            for table in step.tables:
                table.pin()
            try:
                tokens, logits = await self._compute.run(self._run, step, step.chunks())
            finally:
                for table in step.tables:
                    table.unpin()
            self._postprocess(step.sequences, tokens)
            for (prompt, done), row in zip(step.prompts, logits, strict=True):
                self._advance(prompt, done, row)

    def _schedule(self) -> _Step:
        batch = [self._running[i] for i in range(min(self.max_batch, len(self._running)))]
        self._running.rotate(-len(batch))  # more sequences than places take turns
        left = [prompt.left for prompt in self._prompts]
        chunks = prompt_chunks(self.iteration_tokens, len(batch), left)
        return _Step(batch, list(zip(self._prompts, chunks, strict=False)))

    def _run(self, step: _Step, chunks: list[Chunk]) -> tuple[list[Sampled], Logits]:
        """A token a sequence, and the logits after each prompt's chunk, [prompts, vocab]."""
        logits = self.engine.forward(self.pool.cells, chunks)
        decodes = len(step.sequences)
        tokens = [
            sample(
                row,
                sequence.sampling,
                prompt_ids=sequence.prompt_ids,
                output_ids=sequence.output_ids,
                index=len(sequence.output_ids),
            )
            for row, sequence in zip(logits[:decodes], step.sequences, strict=True)
        ]
        return tokens, logits[decodes:]

    def _advance(self, prompt: Prompt, tokens: int, logits: Logits) -> None:
        self.prefilled_tokens += tokens
        prompt.advance(tokens, logits)
        if not prompt.left:
            self._prompts.pop(prompt, None)

    def _postprocess(self, batch: list[Sequence], tokens: list[Sampled]) -> None:
        self.steps += bool(batch)
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
