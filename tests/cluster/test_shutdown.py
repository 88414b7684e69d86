"""However the service ends, nothing of it stays: no process, no shared memory."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from demos.cluster import Cluster, running_cluster
from segue_protocol.wire import private
from tests.processes import TINY, alive, cluster_status, pid_of, segue_descriptors


def _workers(cluster: Cluster) -> dict[int, int]:
    """pid by role."""
    status = asyncio.run(cluster_status(cluster))
    return {role: pid_of(status, role) for role in (private.ROLE_PREFILL, private.ROLE_DECODE)}


def _gone(pids: list[int]) -> bool:
    """Wait for processes to end; bounded by the test's timeout."""
    for pid in pids:
        with pytest.MonkeyPatch.context():
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            import select

            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(30_000)
            os.close(descriptor)
    return not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_every_end_takes_everything_along(number: signal.Signals) -> None:
    shared_before = set(Path("/dev/shm").iterdir())
    with running_cluster(TINY) as cluster:
        workers = _workers(cluster)
        assert all(segue_descriptors(pid) for pid in workers.values()), "pages are shared memory"
        cluster.process.send_signal(number)
        status = cluster.process.wait(30)
        assert status == (0 if number != signal.SIGKILL else -signal.SIGKILL)
        assert _gone(list(workers.values()))
    assert set(Path("/dev/shm").iterdir()) == shared_before


def test_orderly_end_after_a_child_was_killed() -> None:
    with running_cluster(TINY) as cluster:
        workers = _workers(cluster)
        os.kill(workers[private.ROLE_PREFILL], signal.SIGKILL)
        os.kill(workers[private.ROLE_DECODE], signal.SIGSTOP)  # neither does it hear SIGTERM
        cluster.process.terminate()
        assert cluster.process.wait(30) == 0
        assert _gone(list(workers.values()))
