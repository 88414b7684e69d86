"""On the real engine a prompt behind cached cells gives the bits it gives without a cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from segue_cloud.engine.loading import load_engine
from segue_cloud.engine.torch_engine import TorchEngine
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.kv.layout import Cells
from segue_cloud.kv.transfer import KvPuller
from segue_cloud.worker.compute import InlineCompute
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.sampling import Sampling
from segue_protocol.wire import private
from tests.unit.engine_models import VOCAB_SIZE, write_model

CHUNK_TOKENS = 128
CACHE_BYTES = 2**24


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TorchEngine:
    model: Path = write_model(tmp_path_factory.mktemp("model") / "llama")
    return load_engine(model, dtype=request.param)


@pytest.fixture
def slots(engine: TorchEngine) -> Iterator[SlotPool]:
    pool = SlotPool(engine.layout, 1, 256)
    yield pool
    pool.check_integrity()
    pool.close()


def _worker(engine: TorchEngine, slots: SlotPool, cache_bytes: int) -> PrefillWorker:
    return PrefillWorker(
        engine,
        slots,
        InlineCompute(),
        chunk_tokens=CHUNK_TOKENS,
        digest="full",
        prefix_cache_bytes=cache_bytes,
    )


def _prefill(worker: PrefillWorker, ids: list[int]) -> tuple[private.Prefilled, Cells]:
    """The answer to one job, and a copy of the cells that its ticket covers."""

    async def main() -> tuple[private.Prefilled, Cells]:
        async def requests() -> AsyncIterator[private.PrefillRequest]:
            yield private.PrefillRequest(
                job=private.PrefillJob(
                    token_ids=ids,
                    prompt_tokens=len(ids),
                    sampling=Sampling(temperature=0.0, seed=1).to_wire(),
                    cache_salt=b"tenant",
                )
            )
            await asyncio.Event().wait()

        async with aclosing(worker.prefill(requests())) as responses:
            await anext(responses)
            prefilled = (await anext(responses)).prefilled
            layout, puller = worker.engine.layout, KvPuller()
            cells = np.zeros(layout.shape(len(ids)), layout.storage_dtype)
            puller.pull(prefilled.ticket, layout, cells, np.arange(len(ids)), digest="full")
            puller.close()
            return prefilled, cells

    return asyncio.run(main())


def _ids(length: int, seed: int) -> list[int]:
    ids: list[int] = np.random.default_rng(seed).integers(0, VOCAB_SIZE, length).tolist()
    return ids


def test_cached_cells_are_bit_for_bit_the_computed_ones(
    engine: TorchEngine, slots: SlotPool
) -> None:
    beginning = _ids(200, 0)
    warm = _worker(engine, slots, CACHE_BYTES)
    _prefill(warm, [*beginning, *_ids(31, 1)])
    for length, hit in ((1, 128), (7, 128), (40, 128), (56, 128)):
        ids = [*beginning, *_ids(length, 2 + length)]
        fresh = _worker(engine, slots, CACHE_BYTES)
        expected, expected_cells = _prefill(fresh, ids)
        found, cells = _prefill(warm, ids)
        assert (expected.cached_tokens, found.cached_tokens) == (0, hit)
        assert np.array_equal(cells, expected_cells)
        assert found.ticket.digest == expected.ticket.digest
        assert (found.token_id, found.logprob) == (expected.token_id, expected.logprob)
    warm.check_integrity()
