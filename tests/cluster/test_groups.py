"""Two groups of one configuration file, on real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from demos.cluster import Cluster, running_cluster
from segue_device import AsyncClient, Mode, Result, Sampling
from segue_protocol.errors import InvalidRequest
from segue_protocol.wire import private
from tests.processes import TINY, connected, is_idle, wait_for

BEGINNING = "A long way to go, and a long story to tell on the way. " * 12
SAMPLING = Sampling(temperature=0.7, seed=11, logit_bias={2: -100.0})
CONFIG = """
prefill_slots = 2
prefill_chunk_tokens = 64

[[groups]]
name = "chat"
labels = ["chat"]

[[groups]]
name = "stories"
prompt_prefix = "A long way to go, and a long story to tell on the way."
prefill_workers = 2
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    config = tmp_path_factory.mktemp("groups") / "cloud.toml"
    config.write_text(CONFIG)
    with running_cluster(TINY, "--config", str(config), "--unclaimed-s", "1") as running:
        yield running


async def _ask(client: AsyncClient, prompt: str, label: str = "") -> Result:
    stream = client.stream(
        prompt=prompt, sampling=SAMPLING, max_tokens=24, mode=Mode.ONLY_IN_CLOUD, label=label
    )
    async with stream as answer:
        return await answer.final()


async def _prefilled(cluster: Cluster) -> dict[str, int]:
    """Tokens that each group's prefill workers have computed."""
    totals: dict[str, int] = {}
    for worker in (await wait_for(cluster, is_idle)).workers:
        if worker.role == private.ROLE_PREFILL:
            totals[worker.group] = totals.get(worker.group, 0) + worker.prefilled_tokens_total
    return totals


def test_every_group_has_its_own_workers(cluster: Cluster) -> None:
    async def main() -> None:
        status = await wait_for(cluster, lambda status: len(status.workers) == 5)
        roles = sorted((each.group, private.Role.Name(each.role)) for each in status.workers)
        assert roles == [
            ("chat", "ROLE_DECODE"),
            ("chat", "ROLE_PREFILL"),
            ("stories", "ROLE_DECODE"),
            ("stories", "ROLE_PREFILL"),
            ("stories", "ROLE_PREFILL"),
        ]

    asyncio.run(main())


def test_requests_go_to_their_group_by_label_and_by_prefix(cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster) as client:
            before = await _prefilled(cluster)
            await _ask(client, "Tell me about the sea.", label="chat")
            after = await _prefilled(cluster)
            assert after["chat"] > before["chat"]
            assert after["stories"] == before["stories"]
            await _ask(client, BEGINNING)
            last = await _prefilled(cluster)
            assert last["chat"] == after["chat"]
            assert last["stories"] > after["stories"]

    asyncio.run(main())


def test_what_no_group_takes_is_refused_by_name(cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster) as client:
            for label, reason in (("speech", "UNKNOWN_LABEL"), ("", "NO_GROUP")):
                with pytest.raises(InvalidRequest, match="known labels are chat") as caught:
                    await _ask(client, "Tell me about the sea.", label=label)
                assert caught.value.reason == reason

    asyncio.run(main())


def test_a_beginning_is_found_at_its_holder_and_changes_no_token(cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster) as client:
            prompts = [BEGINNING + tail for tail in ("The end.", "What came next?", "Who said so?")]
            cached = []
            for prompt in prompts:
                in_cloud = await _ask(client, prompt)
                stream = client.stream(
                    prompt=prompt, sampling=SAMPLING, max_tokens=24, mode=Mode.ONLY_ON_DEVICE
                )
                async with stream as answer:
                    assert (await answer.final()).token_ids == in_cloud.token_ids
                assert in_cloud.cloud is not None
                cached.append(in_cloud.cloud.usage.cached_tokens)
            # The test before may have left the beginning; the other two hit for certain.
            assert all(hit >= 64 for hit in cached[1:])
            assert not any(hit % 64 for hit in cached)
            status = await wait_for(cluster, is_idle)
            assert sum(worker.cached_tokens_total for worker in status.workers) >= sum(cached)

    asyncio.run(main())


def test_a_configuration_with_two_general_groups_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "cloud.toml"
    config.write_text('[[groups]]\nname = "a"\n[[groups]]\nname = "b"\n')
    with pytest.raises(RuntimeError, match="exit status 1"):
        with running_cluster(TINY, "--config", str(config)):
            raise AssertionError("it started")
