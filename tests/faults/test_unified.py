"""A unified worker whose processes die, or give way to others: answers go on, pages return.

Emulated accelerators: the tokens of the reference model, which depend on every
cell, and processes that start fast.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from demos.cluster import Cluster, running_cluster
from segue_device import AsyncClient, Mode, Sampling
from segue_protocol.wire import private, public
from tests.faults.raw_answer import MAX_TOKENS, raw_answer
from tests.processes import TINY, alive, cluster_status, is_idle, pid_of, wait_for

PREFILL, DECODE = private.ROLE_PREFILL, private.ROLE_DECODE
PROMPT = "A long way to go, and a long story to tell on the way. " * 150
CREDIT = 6
TOKENS = 40
DEADLINE_S = 90.0
EMULATED = ("--engine", "emulated", "--profile", "a100-80g-opt-13b-tp1", "--first-token-s", "60")
ONE = ("--prefill-workers", "0", "--decode-workers", "0", "--unified-workers", "1")
# A target that no share meets.
UNREACHABLE = """
prefill_share = 40
share_window_s = 1.0
speed = 4.0

[[groups]]
prefill_workers = 0
decode_workers = 0
unified_workers = 1
ttft_s = 0.0001
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(TINY, *EMULATED, *ONE) as running:
        yield running


def _ready(status: private.ClusterStatus) -> dict[private.Role, int]:
    return {each.role: each.pid for each in status.workers if each.ready}


def _all_there(status: private.ClusterStatus) -> bool:
    return is_idle(status) and len(_ready(status)) == 2


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    ("victim", "state"),
    [
        (PREFILL, public.REQUEST_STATE_PREFILLING),
        (DECODE, public.REQUEST_STATE_PREFILLING),
        (DECODE, public.REQUEST_STATE_DECODING),
        (DECODE, public.REQUEST_STATE_PARKED),
    ],
    ids=["prefill writes", "decode, while prefill writes", "decode computes", "decode waits"],
)
def test_an_answer_goes_on_after_sigkill(
    cluster: Cluster, victim: private.Role, state: public.RequestState
) -> None:
    credit = CREDIT if state == public.REQUEST_STATE_PARKED else MAX_TOKENS

    async def main() -> None:
        pid = pid_of(await wait_for(cluster, _all_there), victim)
        async with raw_answer(cluster, PROMPT, credit=MAX_TOKENS) as answer:
            expected = await answer.whole()
        async with raw_answer(cluster, PROMPT, credit=credit) as answer:
            await answer.reach(state)
            os.kill(pid, signal.SIGKILL)
            assert await answer.whole() == expected
        status = await wait_for(cluster, _all_there)
        assert pid_of(status, victim) != pid

    asyncio.run(main())


def test_workers_end_with_their_resident_process_and_another_one_is_started(
    cluster: Cluster,
) -> None:
    async def main() -> None:
        pids = set(_ready(await wait_for(cluster, _all_there)).values())
        resident = _parent(min(pids))
        assert _parent(max(pids)) == resident
        async with raw_answer(cluster, PROMPT, credit=MAX_TOKENS) as answer:
            expected = await answer.whole()
        async with raw_answer(cluster, PROMPT, credit=CREDIT) as answer:
            await answer.read_through(CREDIT)
            os.kill(resident, signal.SIGKILL)
            assert await answer.whole() == expected
        status = await wait_for(cluster, _all_there)
        assert not pids & set(_ready(status).values())
        assert not any(alive(pid) for pid in pids)

    asyncio.run(main())


def test_a_target_that_is_missed_moves_compute_and_no_answer_is_lost(tmp_path: Path) -> None:
    """Prefill gets all at once, then decode gives way: two successions under load."""
    log = tmp_path / "answers.jsonl"
    config = tmp_path / "cloud.toml"
    config.write_text(UNREACHABLE)
    flags = ["--config", str(config), "--answer-log", str(log)]
    with running_cluster(TINY, *EMULATED, *flags) as cluster:

        async def main() -> None:
            before = _ready(await wait_for(cluster, _all_there))
            enough = asyncio.Event()
            answers: list[int] = []

            async def device(client: AsyncClient, number: int) -> None:
                while not enough.is_set():
                    stream = client.stream(
                        prompt=f"Number {number} of many.",
                        max_tokens=TOKENS,
                        mode=Mode.ONLY_IN_CLOUD,
                        sampling=Sampling(logit_bias={2: -100.0}),
                    )
                    async with stream as answer:
                        answers.append(len((await answer.final()).token_ids))

            async with AsyncClient(cloud=cluster.address) as client:
                async with anyio.create_task_group() as group:
                    for number in range(4):
                        group.start_soon(device, client, number)
                    with anyio.fail_after(DEADLINE_S):
                        while True:
                            now = _ready(await cluster_status(cluster))
                            if len(now) == 2 and not set(now.values()) & set(before.values()):
                                break
                            await anyio.sleep(0.1)
                    enough.set()
            assert set(answers) == {TOKENS}
            await wait_for(cluster, is_idle)
            records = [json.loads(line) for line in log.read_text().splitlines()]
            assert len(records) == len(answers)
            assert not [each for each in records if each["lost_workers"]]
            assert not [each for each in records if each["recomputed_tokens"]]

        asyncio.run(main())
