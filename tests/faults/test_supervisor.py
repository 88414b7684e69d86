"""A worker that dies again and again is started again, ever later; one that refuses is not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

import anyio
import pytest

from segue_cloud.cluster.supervisor import RESTART_DELAYS_S, Supervisor
from segue_cloud.config import WorkerConfig
from segue_protocol.errors import Unavailable
from tests.processes import TINY, alive

DEADLINE_S = 30.0


def test_a_worker_that_is_killed_three_times(caplog: pytest.LogCaptureFixture) -> None:
    config = WorkerConfig(role="decode", gateway="127.0.0.1:1", model=str(TINY))

    async def main() -> None:
        supervisor = Supervisor([config])
        supervisor.start()
        killed: list[int] = []
        with anyio.fail_after(DEADLINE_S):
            for _ in range(3):
                killed.append(await _another(supervisor, killed))
                os.kill(killed[-1], signal.SIGKILL)
            last = await _another(supervisor, killed)
        assert len({*killed, last}) == 4
        await supervisor.stop()
        assert not alive(last)

    with caplog.at_level(logging.WARNING, logger=Supervisor.__module__):
        asyncio.run(main())
    delays = [record.segue_fields["restart_in_s"] for record in caplog.records]
    assert delays == list(RESTART_DELAYS_S[:3])


@pytest.mark.parametrize(
    "refused",
    [{"model": ""}, {"model": str(TINY / "none")}],
    ids=["by the command", "by the worker"],
)
def test_a_worker_that_refuses_its_configuration_is_not_started_again(
    refused: dict[str, Any],
) -> None:
    async def main() -> None:
        supervisor = Supervisor([WorkerConfig(role="prefill", gateway="127.0.0.1:1", **refused)])
        supervisor.start()
        with anyio.fail_after(DEADLINE_S), pytest.raises(Unavailable, match="prefill"):
            await supervisor.failed
        assert supervisor.pids == []
        await supervisor.stop()

    asyncio.run(main())


async def _another(supervisor: Supervisor, before: list[int]) -> int:
    while True:
        for pid in supervisor.pids:
            if pid not in before:
                return pid
        await asyncio.sleep(0.01)
