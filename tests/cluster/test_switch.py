"""A worker changes its role while others go on: no answer is lost, and the map says so."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from demos.cluster import running_cluster
from segue_device import AsyncClient, Mode, Sampling
from segue_protocol.wire import private
from tests.processes import TINY, cluster_status, wait_for

SAMPLING = Sampling(logit_bias={2: -100.0})
DECODE, PREFILL = private.ROLE_DECODE, private.ROLE_PREFILL


def _roles(status: private.ClusterStatus) -> list[private.Role]:
    return sorted(worker.role for worker in status.workers if worker.ready)


def test_a_decode_worker_becomes_a_prefill_worker_and_back() -> None:
    flags = ("--prefill-workers", "1", "--decode-workers", "2", "--pages", "256")
    with running_cluster(TINY, *flags) as cluster:
        gateway = f"127.0.0.1:{cluster.worker_port}"

        async def answer(client: AsyncClient, number: int) -> int:
            stream = client.stream(
                prompt=f"Number {number} of many.",
                max_tokens=60,
                mode=Mode.ONLY_IN_CLOUD,
                sampling=SAMPLING,
            )
            async with stream as reading:
                return len((await reading.final()).token_ids)

        async def switch(pid: int, role: str) -> str:
            command = [sys.executable, "-m", "segue_cloud.cli", "switch", str(pid), role]
            done = await asyncio.to_thread(
                subprocess.run,
                [*command, "--gateway", gateway],
                capture_output=True,
                text=True,
                timeout=100,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        async def main() -> None:
            status = await wait_for(cluster, lambda each: _roles(each) == [PREFILL, DECODE, DECODE])
            pid = next(worker.pid for worker in status.workers if worker.role == DECODE)
            async with AsyncClient(cloud=cluster.address) as client:
                for role, expected in (
                    ("prefill", [PREFILL, PREFILL, DECODE]),
                    ("decode", [PREFILL, DECODE, DECODE]),
                ):
                    answers = asyncio.gather(*(answer(client, number) for number in range(8)))
                    assert f"joins again as a {role} worker" in await switch(pid, role)
                    assert await answers == [60] * 8
                    status = await wait_for(
                        cluster, lambda each, expected=expected: _roles(each) == expected
                    )
                    assert pid in [worker.pid for worker in status.workers], "the same process"
                    assert await answer(client, 99) == 60
            (group,) = (await cluster_status(cluster)).groups
            assert (group.prefill_workers, group.decode_workers) == (1, 2)
            assert group.prefill_s > 0
            assert group.decode_s > 0
            assert 0 < group.balanced_prefill_workers < 3

        asyncio.run(main())
