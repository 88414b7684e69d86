"""A `python -m demos.chat` process, for tests and for the captures."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

START_TIMEOUT_S = 100.0
STOP_TIMEOUT_S = 20.0
READY = re.compile(r"(http://127\.0\.0\.1:\d+/)")


@dataclass(frozen=True)
class ChatServer:
    """The running server of the page."""

    process: subprocess.Popen[str]
    url: str

    @property
    def gateway_pid(self) -> int | None:
        """The pid of the cluster that the server started; None if it is dead."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in map(int, children.split()):
            if b"segue_cloud.cli" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None


@contextmanager
def running_chat(*flags: str, log: IO[str] | None = None) -> Iterator[ChatServer]:
    """Start server and cluster on free loopback ports, end both on the way out.

    Raises RuntimeError when it ends or stays silent instead of serving.
    """
    command = [sys.executable, "-m", "demos.chat", "--port", "0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        ready = READY.search(process.stdout.readline())
        watchdog.cancel()
        if ready is None:
            raise RuntimeError(f"the page's server did not start (exit status {process.wait()})")
        yield ChatServer(process, ready[1])
    finally:
        watchdog.cancel()
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
