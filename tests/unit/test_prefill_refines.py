"""A prefill worker refines on the way: the list first, then the same first token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from segue_cloud.engine.loading import load_engine
from segue_cloud.engine.torch_engine import TorchEngine
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.refine.attention import AttentionScorer
from segue_cloud.refine.guards import Guards
from segue_cloud.refine.refiner import Refiner
from segue_cloud.worker.compute import ThreadCompute
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.errors import InvalidRequest
from segue_protocol.sampling import Sampling
from segue_protocol.wire import private
from tests.unit.engine_models import write_model

IDS = [(7 * place) % 300 for place in range(200)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TorchEngine:
    model: Path = write_model(tmp_path_factory.mktemp("model") / "llama", num_hidden_layers=4)
    return load_engine(model)


@pytest.fixture
def slots(engine: TorchEngine) -> Iterator[SlotPool]:
    pool = SlotPool(engine.layout, 1, 256)
    yield pool
    assert pool.used == 0
    pool.check_integrity()
    pool.close()


@pytest.fixture
def compute() -> Iterator[ThreadCompute]:
    thread = ThreadCompute("test-prefill")
    yield thread
    thread.close()


def _job(ids: list[int], keep_ratio: float, **changes) -> private.PrefillRequest:
    fields = {
        "token_ids": ids,
        "prompt_tokens": len(ids),
        "sampling": Sampling(temperature=0.0, seed=1).to_wire(),
        "cache_salt": b"tenant",
        "keep_ratio": keep_ratio,
    }
    return private.PrefillRequest(job=private.PrefillJob(**{**fields, **changes}))


async def _requests(job: private.PrefillRequest) -> AsyncIterator[private.PrefillRequest]:
    yield job
    await asyncio.Event().wait()


async def _prefill(
    worker: PrefillWorker, job: private.PrefillRequest
) -> tuple[list[str], private.Refined, private.Prefilled]:
    """The kinds of all responses, and what they held."""
    kinds, refined, prefilled = [], private.Refined(), private.Prefilled()
    async with aclosing(worker.prefill(_requests(job))) as responses:
        async for response in responses:
            kinds.append(response.WhichOneof("message"))
            if kinds[-1] == "refined":
                refined = response.refined
            elif kinds[-1] == "prefilled":
                prefilled = response.prefilled
                break
    return kinds, refined, prefilled


def test_the_list_comes_before_the_first_token_which_stays_the_same(engine, slots, compute) -> None:
    async def main() -> None:
        refiner = Refiner(engine.layout, Guards(()))
        worker = PrefillWorker(
            engine, slots, compute, chunk_tokens=64, prefix_cache_bytes=2**24, refiner=refiner
        )
        kinds, _, plain = await _prefill(worker, _job(IDS, 0.0, cache_salt=b"other"))
        assert kinds == ["accepted", "prefilled"]
        assert plain.list_s == 0
        kinds, refined, first = await _prefill(worker, _job(IDS, 0.5))
        assert kinds == ["accepted", "refined", "prefilled"]
        assert 0 < refined.list_s == first.list_s < first.prefill_s
        assert (first.token_id, first.cached_tokens) == (plain.token_id, 0)
        # 4 and 32 stay in any case.
        assert sum(each.end - each.start for each in refined.kept) == 36 + (200 - 36) // 2
        # Behind a cached beginning the window is computed still, and the list is the same.
        _, again, second = await _prefill(worker, _job(IDS, 0.5))
        assert 0 < second.cached_tokens <= 200 - 32
        assert list(again.kept) == list(refined.kept)
        assert second.token_id == plain.token_id
        worker.check_integrity()

    asyncio.run(main())


def test_without_a_refiner_nothing_is_refined(engine, slots, compute) -> None:
    async def main() -> None:
        worker = PrefillWorker(engine, slots, compute)
        kinds, _, _ = await _prefill(worker, _job(IDS, 0.5))
        assert kinds == ["accepted", "prefilled"]

    asyncio.run(main())


def test_who_leaves_ends_the_pass_between_two_layers(engine, slots, compute) -> None:
    """The scorer holds the engine's thread in its layer until the stream is left."""

    async def main() -> None:
        reached, layers = asyncio.Event(), []
        loop = asyncio.get_running_loop()

        class Refined(Refiner):
            def watch(self, *args, **options):
                watch = super().watch(*args, **options)
                after_layer = watch.after_layer

                def slowly(layer, queries):
                    layers.append(layer)
                    loop.call_soon_threadsafe(reached.set)
                    assert watch._stopped.wait(30)
                    after_layer(layer, queries)

                watch.after_layer = slowly
                return watch

        worker = PrefillWorker(engine, slots, compute, refiner=Refined(engine.layout, Guards(())))
        responses = worker.prefill(_requests(_job(IDS, 0.5)))
        assert (await anext(responses)).HasField("accepted")
        waiting = asyncio.ensure_future(anext(responses))
        await asyncio.wait_for(reached.wait(), 30)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await responses.aclose()
        assert layers == [0]
        assert slots.used == 0
        assert worker.counters.prefilled_tokens == 0

    asyncio.run(main())


def test_a_scorer_that_fails_is_an_error_and_no_answer(engine, slots, compute) -> None:
    class Broken(AttentionScorer):
        def score(self, queries, keys):
            raise InvalidRequest("no scores today")

    async def main() -> None:
        refiner = Refiner(engine.layout, Guards(()), scorer=Broken())
        worker = PrefillWorker(engine, slots, compute, refiner=refiner)
        with pytest.raises(InvalidRequest, match="no scores today"):
            await _prefill(worker, _job(IDS, 0.5))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("keep_ratio", "prompt_tokens"), [(1.0, 200), (-0.1, 200), (float("nan"), 200), (0.5, 199)]
)
def test_a_job_that_cannot_be_refined_is_refused(
    engine, slots, compute, keep_ratio: float, prompt_tokens: int
) -> None:
    async def main() -> None:
        worker = PrefillWorker(engine, slots, compute)
        with pytest.raises(InvalidRequest, match="keep_ratio"):
            await _prefill(worker, _job(IDS, keep_ratio, prompt_tokens=prompt_tokens))

    asyncio.run(main())
