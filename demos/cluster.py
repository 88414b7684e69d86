"""A `segue-cloud serve` process for demos, tests and benchmarks."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0

# What the cluster prints once workers have joined.
READY = re.compile(
    r":(\d+), workers join at \S+:(\d+)(?:, WebSocket at \S+:(\d+))?"
    r"(?:, metrics at (\S+))?$"
)


@dataclass(frozen=True)
class Cluster:
    """A running gateway process and its loopback ports."""

    process: subprocess.Popen[str]
    port: int
    worker_port: int
    websocket_port: int | None
    # None: it was told to have none.
    metrics_url: str | None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.websocket_port}"


@contextmanager
def running_cluster(model: Path, *flags: str, log: IO[str] | None = None) -> Iterator[Cluster]:
    """Start a cluster on free loopback ports, end it on the way out.

    Its log goes to the file `log`, else to where this process's errors go.
    Raises RuntimeError when the cluster ends or stays silent instead of serving.
    """
    command = [sys.executable, "-m", "segue_cloud.cli", "serve", "--model", str(model)]
    command += ["--port", "0", "--websocket-port", "0", "--metrics-port", "0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        watchdog.cancel()
        ready = READY.search(line)
        if ready is None:
            raise RuntimeError(f"the cluster did not start (exit status {process.wait()})")
        port, worker_port, websocket_port, metrics_url = ready.groups()
        yield Cluster(
            process,
            int(port),
            int(worker_port),
            int(websocket_port) if websocket_port else None,
            metrics_url,
        )
    finally:
        watchdog.cancel()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
