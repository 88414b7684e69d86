"""The two workers of a resident process: prefill writes into the pages that decode reserves."""

from __future__ import annotations

from contextlib import AsyncExitStack

from segue_cloud.config import WorkerConfig
from segue_cloud.engine.base import CloudEngine
from segue_cloud.kv.place import PlacedSlots
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import ThreadCompute
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.prefill import PrefillWorker
from segue_cloud.worker.refining import refiner_of
from segue_cloud.worker.residence import Residence


def build_in_place(
    config: WorkerConfig, engine: CloudEngine, context_tokens: int, held: AsyncExitStack
) -> PrefillWorker | DecodeWorker:
    """The worker of `config.role` over the pool of `config.resident`, until `held` ends."""
    pool = Residence.parse(config.resident).pool(engine.layout, config.pages, config.page_tokens)
    held.callback(pool.close)
    # Closed before the pool: it waits for the last write, and only then is nothing pinned.
    compute = ThreadCompute("segue-compute")
    held.callback(compute.close)
    if config.role == "prefill":
        return PrefillWorker(
            engine,
            PlacedSlots(pool, config.prefill_slots, context_tokens),
            compute,
            chunk_tokens=config.prefill_chunk_tokens,
            prefix_cache_bytes=config.prefix_cache_bytes,
            refiner=refiner_of(config, engine),
        )
    return DecodeWorker(Batch(engine, pool, compute, max_batch=config.max_batch), None, compute)
