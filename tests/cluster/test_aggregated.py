"""Aggregated workers as processes: the ids of P/D and of one request alone, drained, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from demos.cluster import Cluster, running_cluster
from segue_device import AsyncClient, Mode, Result, Sampling
from segue_protocol.wire import private
from tests.processes import TINY, cluster_status, is_idle, pid_of, wait_for

WORDS = "A long way to go, and a long story to tell on the way. "
JOBS = [
    (
        f"Number {number}. " + WORDS * (number % 9),
        Sampling(temperature=0.9 * (number % 2), seed=number, logit_bias={2: -100.0}),
        3 + number % 8,
    )
    for number in range(64)
]
PROMPT, SAMPLING, MAX_TOKENS = WORDS * 12, Sampling(seed=3, logit_bias={2: -100.0}), 80


@pytest.fixture(scope="module")
def aggregated() -> Iterator[Cluster]:
    flags = {
        "--aggregated-workers": 2,
        "--prefill-workers": 0,
        "--decode-workers": 0,
        "--iteration-tokens": 96,
        "--max-batch": 48,
        "--prefill-slots": 8,
        "--unclaimed-s": 1,
    }
    with running_cluster(TINY, *(str(word) for flag in flags.items() for word in flag)) as running:
        yield running


async def _ask(client: AsyncClient, prompt: str, sampling: Sampling, max_tokens: int) -> Result:
    stream = client.stream(
        prompt=prompt, sampling=sampling, max_tokens=max_tokens, mode=Mode.ONLY_IN_CLOUD
    )
    async with stream as answer:
        return await answer.final()


async def _all_at_once(cluster: Cluster) -> list[Result]:
    async with AsyncClient(cloud=cluster.address) as client:
        return await asyncio.gather(*(_ask(client, *job) for job in JOBS))


def test_64_requests_at_once_get_the_ids_of_one_alone(
    aggregated: Cluster, cluster: Cluster
) -> None:
    """Level 2: fp32, mixed lengths, greedy and seeded."""

    async def alone() -> list[tuple[int, ...]]:
        async with AsyncClient(cloud=aggregated.address) as client:
            return [(await _ask(client, *job)).token_ids for job in JOBS]

    async def main() -> None:
        expected = await alone()
        for each in (aggregated, cluster):
            results = await _all_at_once(each)
            assert [result.token_ids for result in results] == expected
            assert all(
                result.cloud is not None and result.cloud.usage.recomputed_tokens == 0
                for result in results
            )
        status = await wait_for(aggregated, is_idle)
        assert [worker.role for worker in status.workers] == [private.ROLE_AGGREGATED] * 2
        for worker in status.workers:
            assert worker.transfers_total == worker.transfer_bytes_total == 0
            assert worker.prefilled_tokens_total > 500
            # Decodes shared iterations, though prompts were in them too.
            assert worker.decode_steps_total < worker.decoded_tokens_total

    asyncio.run(main())


def test_drain_moves_nobody_s_answer_and_switch_is_refused(aggregated: Cluster) -> None:
    gateway = f"127.0.0.1:{aggregated.worker_port}"

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "segue_cloud.cli", *words, "--gateway", gateway],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    async def main() -> None:
        pid = str(pid_of(await wait_for(aggregated, is_idle), private.ROLE_AGGREGATED))
        refused = await asyncio.to_thread(command, "switch", pid, "prefill")
        assert refused.returncode == 1
        assert "shares one page pool" in refused.stderr
        answers = asyncio.create_task(_all_at_once(aggregated))
        drained = await asyncio.to_thread(command, "drain", pid)
        assert drained.stdout == f"aggregated worker {pid} has left\n"
        for result in await answers:
            assert result.cloud is not None
            assert result.cloud.usage.recomputed_tokens == 0
        shown = await asyncio.to_thread(command, "status")
        assert "aggregated  default" in shown.stdout

    asyncio.run(main())


def test_an_answer_goes_on_when_its_worker_is_killed(aggregated: Cluster) -> None:
    async def main() -> None:
        await wait_for(aggregated, lambda each: is_idle(each) and len(each.workers) == 2)
        async with AsyncClient(cloud=aggregated.address) as client:
            whole = await _ask(client, PROMPT, SAMPLING, MAX_TOKENS)
            answer = asyncio.create_task(_ask(client, PROMPT, SAMPLING, MAX_TOKENS))
            while True:
                assert not answer.done(), "over before its worker was found"
                workers = (await cluster_status(aggregated)).workers
                if holders := [worker.pid for worker in workers if worker.running]:
                    break
            os.kill(holders[0], signal.SIGKILL)
            result = await answer
        assert result.token_ids == whole.token_ids
        assert result.cloud is not None
        assert result.cloud.usage.recomputed_tokens > 0, "it was lost in mid-answer"
        after = await wait_for(aggregated, is_idle)
        assert holders[0] not in [worker.pid for worker in after.workers]

    asyncio.run(main())
