"""The same answers whichever way KV moves, alone and under load (exactness level 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from demos.cluster import Cluster, running_cluster
from segue_device import Mode, Result, Sampling
from segue_protocol.wire import private
from tests.processes import TINY, connected, is_idle, wait_for

REQUESTS = 64
# Three clusters one after the other, and every request alone before.
pytestmark = pytest.mark.timeout(300)
SENTENCE = "A long way to go, and a long story to tell on the way. "
PROMPTS = [SENTENCE * (1 + place % 4) + f"Say {place}." for place in range(REQUESTS)]
MAX_TOKENS = 8


async def _ask(cluster: Cluster, *, at_once: int) -> list[Result]:
    places = asyncio.Semaphore(at_once)
    async with connected(cluster, with_engine=False) as client:

        async def one(place: int) -> Result:
            async with places:
                stream = client.stream(
                    prompt=PROMPTS[place],
                    sampling=Sampling(temperature=0.7, seed=place, logit_bias={2: -100.0}),
                    max_tokens=MAX_TOKENS,
                    mode=Mode.ONLY_IN_CLOUD,
                )
                async with stream as answer:
                    return await answer.final()

        return list(await asyncio.gather(*(one(place) for place in range(REQUESTS))))


@pytest.fixture(scope="module")
def alone(cluster: Cluster) -> list[tuple[int, ...]]:
    """What every request is answered when no other runs, KV through shared memory."""
    return [tuple(each.token_ids) for each in asyncio.run(_ask(cluster, at_once=1))]


@pytest.fixture(params=["shm layer", "tcp layer", "nixl request"])
def moving(request: pytest.FixtureRequest) -> Iterator[tuple[str, Cluster]]:
    name, trigger = request.param.split()
    flags = ("--transfer", name, "--transfer-trigger", trigger, "--kv-digest", "full")
    with running_cluster(TINY, *flags, "--max-batch", "64") as running:
        yield name, running


def test_sixty_four_at_once_get_what_each_gets_alone(
    moving: tuple[str, Cluster], alone: list[tuple[int, ...]]
) -> None:
    name, cluster = moving

    async def main() -> None:
        together = await _ask(cluster, at_once=REQUESTS)
        assert [tuple(each.token_ids) for each in together] == alone
        assert len(set(alone)) > REQUESTS // 2
        for each in together:
            assert each.cloud is not None
            assert each.cloud.usage.recomputed_tokens == 0
        status = await wait_for(cluster, is_idle)
        decoder = next(each for each in status.workers if each.role == private.ROLE_DECODE)
        assert decoder.transfers_total >= REQUESTS
        assert not decoder.transfer_failures
        assert decoder.transfer.startswith(name)
        assert decoder.quarantined_bytes == 0

    asyncio.run(main())
