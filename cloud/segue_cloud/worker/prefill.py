"""The prefill worker: slots, no queue.

It accepts a request iff a slot is free and says so at once; waiting happens at
the gateway (P/D-Serve, on-demand forwarding). A slot stays held until the
gateway reports that the KV has been pulled, the stream ends, or the lease runs
out, whichever comes first.

A prompt is computed in chunks; one that is to be refined in a single pass, so
that the list leaves as soon as its layer is done, long before the first token.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import anyio

from segue_cloud.engine.base import Chunk, CloudEngine, LayerWatch
from segue_cloud.kv.contiguous import Slot as ContiguousSlot
from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.place import PlacedSlot
from segue_cloud.kv.prefixes import BLOCK_TOKENS, MAX_SALT_BYTES, block_ends, block_keys
from segue_cloud.refine.refiner import Refiner
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import Compute, end_of
from segue_cloud.worker.prefix_cache import PrefixCache
from segue_cloud.worker.prompt import Logits
from segue_cloud.worker.refining import Refining
from segue_cloud.worker.requests import next_message
from segue_cloud.worker.slots import Slot, Slots
from segue_cloud.worker.watching import LayersDone, all_of
from segue_protocol.errors import Cancelled, InvalidRequest, Overloaded
from segue_protocol.sampling import Sampling, sample
from segue_protocol.wire import private

SLOT_RETRY_S = 0.02


@dataclass(slots=True)
class PrefillCounters:
    """What a prefill worker did since it started."""

    prefilled_tokens: int = 0
    rejections: int = 0
    leases_expired: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Ran:
    """What one prefill made, and what it took."""

    logits: Logits
    ticket: private.KvTicket
    cached_tokens: int
    prefill_s: float


class PrefillWorker:
    """Prompts in, first token and a ticket for the KV out."""

    def __init__(
        self,
        engine: CloudEngine,
        slots: Slots,
        compute: Compute,
        *,
        chunk_tokens: int = 512,
        digest: DigestKind = "sampled",
        pull_lease_s: float = 30.0,
        prefix_cache_bytes: int = 0,
        layerwise: bool = False,
        batch: Batch | None = None,
        refiner: Refiner | None = None,
    ) -> None:
        """`prefix_cache_bytes`: how much KV of prompt beginnings is kept for later jobs.

        `layerwise`: a prompt goes through the layers in a single pass, whatever
        `chunk_tokens`, and its KV is offered layer by layer; of no effect where KV
        stays in place. `batch`: prompts go through it, beside what it decodes, in chunks as it has
        room for; else one after the other, in chunks of `chunk_tokens`. Without a
        `refiner` no prompt is refined, whatever a job asks for.
        """
        self.engine = engine
        self.slots = slots
        self.counters = PrefillCounters()
        self.prefixes = PrefixCache(engine.layout, prefix_cache_bytes)
        self._compute = compute
        self._chunk_tokens = chunk_tokens
        self._digest: DigestKind = digest
        self._pull_lease_s = pull_lease_s
        self._layerwise = layerwise
        self._batch = batch
        self._refiner = refiner
        # One prompt at a time: two interleaved prefills would both end late.
        # A batch has turns of its own.
        self._turn: AbstractAsyncContextManager[object] = (
            asyncio.Lock() if batch is None else nullcontext()
        )

    async def prefill(
        self, requests: AsyncIterator[private.PrefillRequest]
    ) -> AsyncGenerator[private.PrefillResponse, None]:
        """One request: `job` in; `accepted`, perhaps `started` and `refined`, `prefilled`
        out; `release` in.

        Raises Overloaded when no slot is free, ContextTooLong when the tokens
        do not fit a slot, InvalidRequest on a malformed job, TransferError
        when the place to write to is not, or no longer, a reservation.
        """
        job = (await next_message(requests, "job")).job
        tokens = len(job.token_ids)
        if not 0 < job.prompt_tokens <= tokens:
            raise InvalidRequest(
                f"prefill job with {tokens} token ids of which {job.prompt_tokens} are prompt; "
                "expected at least one prompt token and no more than there are ids"
            )
        if len(job.cache_salt) > MAX_SALT_BYTES or job.shared_tokens > job.prompt_tokens:
            raise InvalidRequest(
                f"prefill job with a salt of {len(job.cache_salt)} bytes and {job.shared_tokens} "
                f"shared tokens; expected at most {MAX_SALT_BYTES} and {job.prompt_tokens}"
            )
        if job.keep_ratio and not (0 < job.keep_ratio < 1 and tokens == job.prompt_tokens):
            raise InvalidRequest(
                f"prefill job with keep_ratio {job.keep_ratio} and {tokens - job.prompt_tokens} "
                "output tokens; expected a ratio above 0 and below 1, and none"
            )
        place = job.place if job.HasField("place") else None
        slot = self.slots.acquire(tokens, place)
        if slot is None:
            self.counters.rejections += 1
            raise Overloaded(
                "every prefill slot is taken; offer the request elsewhere or again later",
                reason="NO_PREFILL_SLOT",
                retry_after_s=SLOT_RETRY_S,
            )
        try:
            yield private.PrefillResponse(accepted=private.Accepted())
            refining = self._refining(job, slot)
            news: asyncio.Queue[private.PrefillResponse | None] = asyncio.Queue()
            work = self._run(job, slot, refining, news.put_nowait)
            async with _running(work, refining) as run:
                run.add_done_callback(lambda _: news.put_nowait(None))
                while (early := await news.get()) is not None:
                    yield early
                ran = await run
            output = job.token_ids[job.prompt_tokens :]
            token = sample(
                ran.logits,
                Sampling.from_wire(job.sampling),
                prompt_ids=job.token_ids[: job.prompt_tokens],
                output_ids=output,
                index=len(output),
            )
            yield private.PrefillResponse(
                prefilled=private.Prefilled(
                    epoch=job.epoch,
                    index=len(output),
                    token_id=token.token_id,
                    ticket=ran.ticket,
                    prefill_s=ran.prefill_s,
                    logprob=token.logprob,
                    cached_tokens=ran.cached_tokens,
                    list_s=refining.list_s if refining is not None else 0.0,
                )
            )
            with anyio.move_on_after(self._pull_lease_s) as lease:
                await next_message(requests, "release")
            if lease.cancelled_caught:
                self.counters.leases_expired += 1
        finally:
            self.slots.release(slot)

    def _refining(self, job: private.PrefillJob, slot: Slot) -> Refining | None:
        if self._refiner is None or not job.keep_ratio:
            return None
        return Refining(
            self._refiner,
            list(job.token_ids),
            job.keep_ratio,
            slot,
            self._compute,
            looks_back=self._batch is not None,
        )

    async def _run(
        self,
        job: private.PrefillJob,
        slot: Slot,
        refining: Refining | None,
        tell: Callable[[private.PrefillResponse], None],
    ) -> _Ran:
        """Compute the prompt in its turn; `tell` what is known before its end.

        In chunks, an abort takes effect between two; in the single pass that refines
        between two layers. The last block is always computed, which the logits need, and so is
        the window whose queries refine.
        """
        async with self._turn:
            started_s = anyio.current_time()
            watches: list[LayerWatch] = []
            if self._layerwise and isinstance(slot, ContiguousSlot):
                tell(private.PrefillResponse(started=private.Started(ticket=slot.early_ticket())))
                watches.append(LayersDone(slot))
            ids = list(job.token_ids)
            first = BLOCK_TOKENS if self.prefixes.enabled else self._chunk_tokens
            ends = block_ends(len(ids), self._chunk_tokens, first)
            keys: list[bytes] = []
            if self.prefixes.enabled:
                salt, shared_tokens = job.cache_salt, job.shared_tokens
                keys = block_keys(ids, ends[:-1], salt=salt, shared_tokens=shared_tokens)
            known = ends[: len(keys)]
            place = (slot.cells, slot.where(len(ids)))
            usable = len(keys)
            if refining is not None:
                refining.begin(tell)
                watches.append(refining.watch)
                usable = bisect_right(known, refining.cacheable_tokens)
            hits = 0
            if usable:
                there = (keys[:usable], known[:usable])
                hits = await self._compute.run(self.prefixes.load, *there, *place)
            cached_tokens = ends[hits - 1] if hits else 0
            self.counters.cached_tokens += cached_tokens
            if self._batch is not None:
                assert isinstance(slot, PlacedSlot)
                logits = await self._batch.prefill(ids, cached_tokens, slot.table)
                await self._look_back(ids, slot, refining)
                ticket = slot.ticket(self._digest)
            else:
                stops = ends[-1:] if watches else ends[hits:]
                watch = all_of(watches)
                logits, ticket = await self._chunks(ids, cached_tokens, stops, slot, watch)
            if refining is not None:
                await asyncio.wait([refining.refined])  # made by now, but perhaps not told yet
            if keys:
                await self._compute.run(self.prefixes.store, keys, known, *place)
            return _Ran(logits, ticket, cached_tokens, anyio.current_time() - started_s)

    async def _chunks(
        self, ids: list[int], start: int, ends: list[int], slot: Slot, watch: LayerWatch | None
    ) -> tuple[Logits, private.KvTicket]:
        """Compute the tokens from `start` on; the logits after the last, and the ticket."""
        for end in ends[:-1]:
            chunk = Chunk(ids[start:end], range(start, end), slot.where(end))
            await self._compute.run(self.engine.forward, slot.cells, [chunk])
            self.counters.prefilled_tokens += end - start
            start = end
        chunk = Chunk(ids[start:], range(start, len(ids)), slot.where(len(ids)))
        last = await self._compute.run(self._last, slot, chunk, watch)
        self.counters.prefilled_tokens += len(ids) - start
        return last

    def _last(
        self, slot: Slot, chunk: Chunk, watch: LayerWatch | None
    ) -> tuple[Logits, private.KvTicket]:
        """Not on the event loop: a full digest reads every byte."""
        logits: Logits = self.engine.forward(slot.cells, [chunk], watch=watch)[0]
        return logits, slot.ticket(self._digest)

    async def _look_back(self, ids: list[int], slot: Slot, refining: Refining | None) -> None:
        """Make the list of a prompt that went through a batch, whose queries are gone.

        Its last tokens run once more, as far as the layers that are scored.
        """
        if refining is None:
            return
        start = refining.cacheable_tokens
        chunk = Chunk(ids[start:], range(start, len(ids)), slot.where(len(ids)))
        with suppress(Cancelled):
            await self._compute.run(self.engine.forward, slot.cells, [chunk], watch=refining.watch)
        await refining.refined

    def check_integrity(self) -> None:
        """Raise InternalError unless every slot and every cached byte is accounted for."""
        self.slots.check_integrity()
        self.prefixes.check_integrity()

    def status(self) -> private.WorkerStatus:
        """Counts for the gateway and for tests."""
        return private.WorkerStatus(
            role=private.ROLE_PREFILL,
            slots_used=self.slots.used,
            slots=self.slots.slots,
            prefilled_tokens_total=self.counters.prefilled_tokens,
            rejections_total=self.counters.rejections,
            cached_tokens_total=self.counters.cached_tokens,
            leases_expired_total=self.counters.leases_expired,
        )


@asynccontextmanager
async def _running(
    work: Coroutine[Any, Any, _Ran], refining: Refining | None
) -> AsyncGenerator[asyncio.Task[_Ran], None]:
    """`work` as a task that has ended when the block is left, by whatever way."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        if refining is not None:
            refining.stop()
        task.cancel()
        await end_of(task)
