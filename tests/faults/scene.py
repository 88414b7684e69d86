"""Workers started apart from the gateway, which comes and goes on fixed ports."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from demos.cluster import Cluster, running_cluster
from tests.processes import TINY

HOSTS = {"prefill": "127.0.0.2", "decode": "127.0.0.3"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_worker(role: str, gateway: str, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "segue_cloud.cli", "worker", "--role", role]
    command += ["--gateway", gateway, "--model", str(TINY), "--host", HOSTS[role], *flags]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Scene:
    """Two workers that were there first, and the gateway they join."""

    def __init__(self, held: ExitStack) -> None:
        self.port, self.worker_port = _free_port(), _free_port()
        self.workers = {
            role: held.enter_context(ended(start_worker(role, self.join_address))) for role in HOSTS
        }

    @property
    def join_address(self) -> str:
        return f"127.0.0.1:{self.worker_port}"

    def gateway(self, *more: str) -> AbstractContextManager[Cluster]:
        flags = {
            "--port": self.port,
            "--worker-port": self.worker_port,
            "--prefill-workers": 0,
            "--decode-workers": 0,
            "--unclaimed-s": 1,
            "--heartbeat-s": 0.5,
        }
        words = [str(part) for pair in flags.items() for part in pair]
        return running_cluster(TINY, *words, *more)
