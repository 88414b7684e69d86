"""The worker processes a gateway starts on its own host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

import anyio

from segue_cloud.config import WorkerConfig, worker_flags
from segue_cloud.watch.logs import event
from segue_protocol.errors import Unavailable

log = logging.getLogger(__name__)

RESTART_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0)
# A worker that has lived this long is not the one that flaps.
STEADY_S = 60.0
TERMINATE_GRACE_S = 3.0


class Supervisor:
    """Starts workers, restarts dead ones with backoff, ends all of them.

    Every child holds the read end of a pipe of ours as its standard input: if
    this process is killed, the pipe closes and the children leave. Their
    memory is anonymous and goes with them.
    """

    def __init__(self, workers: Sequence[WorkerConfig]) -> None:
        self._configs = workers
        self._children: set[Process] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in self._children]

    def start(self) -> None:
        """Start one process for every configuration and keep it alive.

        One that drains and leaves is replaced as well: drained one after the
        other, all workers run a new version. A worker that refuses its
        configuration (exit status 1) is not; `failed` then raises.
        """
        self._keepers = [asyncio.create_task(self._keep(config)) for config in self._configs]

    async def _keep(self, config: WorkerConfig) -> None:
        attempt = 0
        while True:
            started_s = anyio.current_time()
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "segue_cloud.cli",
                "worker",
                *worker_flags(config),
                stdin=PIPE,
                start_new_session=True,  # Ctrl-C reaches us; we then end the children in order
            )
            self._children.add(child)
            try:
                status = await child.wait()
            finally:
                if child.returncode is not None:
                    self._children.discard(child)
            if status == 1:
                self._fail(config)
                return
            if anyio.current_time() - started_s > STEADY_S:
                attempt = 0
            delay_s = RESTART_DELAYS_S[min(attempt, len(RESTART_DELAYS_S) - 1)]
            event(
                log,
                logging.WARNING,
                "worker process ended",
                role=config.role,
                group=config.group,
                worker_pid=child.pid,
                status=status,
                restart_in_s=delay_s,
            )
            attempt += 1
            await asyncio.sleep(delay_s)

    def _fail(self, config: WorkerConfig) -> None:
        if not self.failed.done():
            self.failed.set_exception(
                Unavailable(
                    f"the {config.role} worker cannot start; its own message stands above",
                    reason="WORKER_REFUSED",
                )
            )

    async def stop(self) -> None:
        """End every child: politely, then by SIGKILL (which also ends a stopped one)."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        children = list(self._children)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        waits = [asyncio.create_task(child.wait()) for child in children]
        if waits:
            await asyncio.wait(waits, timeout=TERMINATE_GRACE_S)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await asyncio.gather(*waits)
        if self.failed.done():
            self.failed.exception()  # seen by `serve` or not wanted any more
