"""A `segue-cloud serve` process for demos, tests and benchmarks."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0


@contextmanager
def running_cluster(model: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a cluster on a free loopback port; yields (gateway process, port); ends it.

    Raises RuntimeError when the cluster ends or stays silent instead of serving.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "segue_cloud.cli", "serve", "--model", str(model), "--port", "0",
         *flags],
        stdout=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        found = re.search(r":(\d+)$", process.stdout.readline().strip())
        watchdog.cancel()
        if found is None:
            raise RuntimeError(f"the cluster did not start (exit status {process.wait()})")
        yield process, int(found.group(1))
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
