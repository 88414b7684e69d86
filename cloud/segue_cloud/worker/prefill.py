"""The prefill worker: slots, no queue.

It accepts a request iff a slot is free and says so at once; waiting happens at
the gateway (P/D-Serve, on-demand forwarding). A slot stays held until the
gateway reports that the KV has been pulled, the stream ends, or the lease runs
out, whichever comes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

import anyio

from segue_cloud.engine.base import Chunk, CloudEngine
from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.place import PlacedSlot
from segue_cloud.kv.prefixes import BLOCK_TOKENS, MAX_SALT_BYTES, block_ends, block_keys
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import Compute
from segue_cloud.worker.prefix_cache import PrefixCache
from segue_cloud.worker.prompt import Logits
from segue_cloud.worker.requests import next_message
from segue_cloud.worker.slots import Slot, Slots
from segue_protocol.errors import InvalidRequest, Overloaded
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
        batch: Batch | None = None,
    ) -> None:
        """`prefix_cache_bytes`: how much KV of prompt beginnings is kept for later jobs.

        `batch`: prompts go through it, beside what it decodes, in chunks as it has
        room for; else one after the other, in chunks of `chunk_tokens`.
        """
        self.engine = engine
        self.slots = slots
        self.counters = PrefillCounters()
        self.prefixes = PrefixCache(engine.layout, prefix_cache_bytes)
        self._compute = compute
        self._chunk_tokens = chunk_tokens
        self._digest: DigestKind = digest
        self._pull_lease_s = pull_lease_s
        self._batch = batch
        # One prompt at a time: two interleaved prefills would both end late.
        # A batch has turns of its own.
        self._turn: AbstractAsyncContextManager[object] = (
            asyncio.Lock() if batch is None else nullcontext()
        )

    async def prefill(
        self, requests: AsyncIterator[private.PrefillRequest]
    ) -> AsyncGenerator[private.PrefillResponse, None]:
        """One request: `job` in; `accepted` and `prefilled` out; `release` in.

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
            async with self._turn:
                started = anyio.current_time()
                logits, cached_tokens = await self._run(job, slot)
                prefill_s = anyio.current_time() - started
            output = job.token_ids[job.prompt_tokens :]
            token = sample(
                logits,
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
                    ticket=slot.ticket(self._digest),
                    prefill_s=prefill_s,
                    logprob=token.logprob,
                    cached_tokens=cached_tokens,
                )
            )
            with anyio.move_on_after(self._pull_lease_s) as lease:
                await next_message(requests, "release")
            if lease.cancelled_caught:
                self.counters.leases_expired += 1
        finally:
            self.slots.release(slot)

    async def _run(self, job: private.PrefillJob, slot: Slot) -> tuple[Logits, int]:
        """Logits after the last token, and how many tokens came from the cache.

        Block by block: an abort takes effect between two. The last block is
        always computed, which the logits need.
        """
        ids = list(job.token_ids)
        largest = self._chunk_tokens
        first = BLOCK_TOKENS if self.prefixes.enabled else largest
        ends = block_ends(len(ids), largest, first)
        keys: list[bytes] = []
        if self.prefixes.enabled:
            salt, shared_tokens = job.cache_salt, job.shared_tokens
            keys = block_keys(ids, ends[:-1], salt=salt, shared_tokens=shared_tokens)
        caching = (keys, ends[: len(keys)], slot.cells, slot.where(len(ids)))
        hits = await self._compute.run(self.prefixes.load, *caching) if keys else 0
        start = cached_tokens = ends[hits - 1] if hits else 0
        self.counters.cached_tokens += cached_tokens
        if self._batch is not None:
            assert isinstance(slot, PlacedSlot)
            last = await self._batch.prefill(ids, start, slot.table)
        else:
            last = await self._chunks(ids, start, ends[hits:], slot)
        if keys:
            await self._compute.run(self.prefixes.store, *caching)
        return last, cached_tokens

    async def _chunks(self, ids: list[int], start: int, ends: list[int], slot: Slot) -> Logits:
        for end in ends:
            chunk = Chunk(ids[start:end], range(start, end), slot.where(end))
            logits = await self._compute.run(self.engine.forward, slot.cells, [chunk])
            self.counters.prefilled_tokens += end - start
            start = end
        last: Logits = logits[0]
        return last

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
