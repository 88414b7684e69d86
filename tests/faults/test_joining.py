"""Workers started apart from the gateway: they wait for it, outlive it and join again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from demos.cluster import Cluster
from segue_cloud.cli import main as segue_cloud
from segue_device import Mode, Token
from segue_protocol.wire import private
from tests.faults.raw_answer import MAX_TOKENS, raw_answer
from tests.faults.scene import Scene, ended, start_worker
from tests.processes import alive, connected, is_idle, wait_for

PROMPT = "A long way to go, and a long story to tell on the way. " * 30
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with ExitStack() as held:
        yield Scene(held)


async def _whole(cluster: Cluster) -> list[int]:
    async with raw_answer(cluster, PROMPT, credit=MAX_TOKENS) as answer:
        return await answer.whole()


def test_the_workers_wait_for_the_gateway_and_outlive_it(scene: Scene) -> None:
    """A cloud-only client starts again with `output_prefix`; a split device goes on alone."""

    async def break_cloud_only(cluster: Cluster) -> tuple[list[int], list[int]]:
        whole = await _whole(cluster)
        status = await wait_for(cluster, is_idle)
        assert {worker.pid for worker in status.workers} == {
            process.pid for process in scene.workers.values()
        }
        async with raw_answer(cluster, PROMPT, credit=8) as answer:
            await answer.read_through(8)
            cluster.process.kill()
            return whole, answer.ids

    async def go_on(cluster: Cluster, ids: list[int]) -> list[int]:
        async with raw_answer(cluster, PROMPT, credit=MAX_TOKENS, output_prefix=ids) as answer:
            return await answer.whole()

    async def split(cluster: Cluster, number: signal.Signals) -> None:
        async with connected(cluster) as client:
            stream = client.stream(prompt=PROMPT, max_tokens=MAX_TOKENS, mode=Mode.ONLY_ON_DEVICE)
            async with stream as answer:
                alone = await answer.final()
            async with client.stream(prompt=PROMPT, max_tokens=MAX_TOKENS) as answer:
                async for event in answer:
                    if isinstance(event, Token) and event.index == 2:
                        os.kill(cluster.process.pid, number)
                        break
                result = await answer.final()
            assert result.token_ids == alone.token_ids
            assert result.usage.device_tokens > 0

    with scene.gateway() as cluster:
        whole, ids = asyncio.run(break_cloud_only(cluster))
    assert 0 < len(ids) < len(whole)
    with scene.gateway() as cluster:
        assert asyncio.run(go_on(cluster, ids)) == whole
        asyncio.run(split(cluster, signal.SIGSTOP))
        os.kill(cluster.process.pid, signal.SIGCONT)
        asyncio.run(wait_for(cluster, is_idle))
        assert asyncio.run(_whole(cluster)) == whole
        asyncio.run(split(cluster, signal.SIGKILL))
    with scene.gateway() as cluster:
        assert asyncio.run(_whole(cluster)) == whole
        asyncio.run(wait_for(cluster, is_idle, within_s=10))
    assert all(alive(process.pid) for process in scene.workers.values())


def test_a_worker_with_another_layout_is_refused_by_name(scene: Scene) -> None:
    with (
        scene.gateway(),
        ended(start_worker("decode", scene.join_address, "--dtype", "bfloat16")) as odd,
    ):
        _, errors = odd.communicate(timeout=DEADLINE_S)
        assert odd.returncode == 1, errors
        assert "dtype" in errors
        assert "bfloat16" in errors


def test_a_host_that_is_not_ours_is_refused() -> None:
    with ended(start_worker("decode", "127.0.0.1:1", "--host", "192.0.2.1")) as odd:
        _, errors = odd.communicate(timeout=DEADLINE_S)
    assert odd.returncode == 1
    assert "192.0.2.1" in errors


def test_drain_by_command(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """The worker leaves and ends; who is left is not ready alone."""
    with scene.gateway() as cluster:
        drained = scene.workers["decode"]
        assert segue_cloud(["drain", "4711x", "--gateway", scene.join_address]) == 1
        assert "no worker '4711x'" in capsys.readouterr().err
        assert segue_cloud(["drain", str(drained.pid), "--gateway", scene.join_address]) == 0
        assert f"decode worker {drained.pid} has left" in capsys.readouterr().out
        assert drained.wait(DEADLINE_S) == 0
        status = asyncio.run(wait_for(cluster, lambda status: len(status.workers) == 1))
        assert status.workers[0].role == private.ROLE_PREFILL
