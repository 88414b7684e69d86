"""A unified worker on real processes: the answers of P/D, and nothing moved or lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demos.cluster import Cluster, running_cluster
from segue_cloud.worker.compute_share import nice_for
from segue_device import AsyncClient, Mode, Sampling
from segue_protocol.wire import private
from tests.faults.raw_answer import MAX_TOKENS, raw_answer
from tests.processes import TINY, is_idle, wait_for

PREFILL, DECODE = private.ROLE_PREFILL, private.ROLE_DECODE
PROMPT = "A long way to go, and a long story to tell on the way. " * 30
CREDIT = 6
ANSWERS = 64
CONFIG = """
first_token_s = 100.0
prefill_share = 60

[[groups]]
name = "pd"
labels = ["pd"]

[[groups]]
name = "one"
prefill_workers = 0
decode_workers = 0
unified_workers = 1
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unified") / "answers.jsonl"


@pytest.fixture(scope="module")
def cluster(log: Path) -> Iterator[Cluster]:
    config = log.with_name("cloud.toml")
    config.write_text(CONFIG)
    flags = ("--config", str(config), "--answer-log", str(log), "--pages", "1024")
    with running_cluster(TINY, *flags) as running:
        yield running


def _workers(status: private.ClusterStatus, group: str) -> dict[private.Role, private.WorkerStatus]:
    return {each.role: each for each in status.workers if each.group == group and each.ready}


def _all_there(status: private.ClusterStatus) -> bool:
    return is_idle(status) and len(_workers(status, "one")) == 2


def _prompt(number: int) -> str:
    return f"Number {number} of many, " * (1 + number * 7 % 23)


async def _ask(client: AsyncClient, number: int, label: str = "") -> tuple[int, ...]:
    stream = client.stream(
        prompt=_prompt(number),
        max_tokens=5 + number * 5 % 37,
        mode=Mode.ONLY_IN_CLOUD,
        label=label,
        sampling=Sampling(temperature=0.7, seed=number),
    )
    async with stream as answer:
        return (await answer.final()).token_ids


def test_64_answers_at_once_are_those_of_prefill_and_decode_workers(
    cluster: Cluster, log: Path
) -> None:
    async def main() -> None:
        async with AsyncClient(cloud=cluster.address) as client:
            numbers = range(ANSWERS)
            unified = await asyncio.gather(*(_ask(client, each) for each in numbers))
            moved = await asyncio.gather(*(_ask(client, each, "pd") for each in numbers))
            assert unified == moved
            assert [await _ask(client, each) for each in numbers[::16]] == unified[::16]
        status = await wait_for(cluster, is_idle)
        decode, ordinary = _workers(status, "one")[DECODE], _workers(status, "pd")[DECODE]
        assert (decode.transfers_total, decode.transfer_bytes_total) == (0, 0)
        assert ordinary.transfer_bytes_total > 0
        records = _records(log)
        assert len(records) == ANSWERS + 4
        assert not any(each["recomputed_tokens"] or each["lost_workers"] for each in records)

    asyncio.run(main())


def test_both_processes_map_what_the_resident_one_made(cluster: Cluster) -> None:
    async def main() -> None:
        status = await wait_for(cluster, _all_there)
        for worker in _workers(status, "one").values():
            assert _mappings(worker.pid) == ["r--s", "rw-s"], "weights are read, pages written"
        prefill = _workers(status, "one")[PREFILL].pid
        assert os.getpriority(os.PRIO_PROCESS, prefill) == nice_for(60)

    asyncio.run(main())


def test_an_answer_goes_on_after_sigkill_of_the_decode_process(cluster: Cluster) -> None:
    async def main() -> None:
        status = await wait_for(cluster, _all_there)
        before = _workers(status, "one")
        async with raw_answer(cluster, PROMPT, credit=MAX_TOKENS) as answer:
            expected = await answer.whole()
        async with raw_answer(cluster, PROMPT, credit=CREDIT) as answer:
            await answer.read_through(CREDIT)
            os.kill(before[DECODE].pid, signal.SIGKILL)
            assert await answer.whole() == expected
        after = _workers(await wait_for(cluster, _all_there), "one")
        assert after[DECODE].pid != before[DECODE].pid
        assert after[PREFILL].pid == before[PREFILL].pid

    asyncio.run(main())


def _mappings(pid: int) -> list[str]:
    """Permissions of the memory files that a process maps."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sorted(line.split()[1] for line in lines if "memfd:segue" in line)


def _records(log: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [each for each in records if each["group"] == "one"]
