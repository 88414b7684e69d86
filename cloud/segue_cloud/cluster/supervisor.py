"""The worker processes that a gateway, or a resident process, starts on its own host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence

import anyio

from segue_cloud.config import WorkerConfig, worker_flags
from segue_cloud.watch.logs import event
from segue_cloud.worker.compute_share import environment_for, share_of
from segue_protocol.errors import Unavailable

log = logging.getLogger(__name__)

RESTART_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0)
# A worker that has lived this long is not the one that flaps.
STEADY_S = 60.0
TERMINATE_GRACE_S = 3.0
# Beyond its own drain_grace_s, for a worker that was told to leave.
LEAVE_GRACE_S = 10.0
WORKER_REFUSED = "WORKER_REFUSED"


class Keeper:
    """Keeps one worker process alive until it is told to leave."""

    def __init__(self, config: WorkerConfig, supervisor: Supervisor) -> None:
        self.config = config
        self.child: Process | None = None
        self._supervisor = supervisor
        self._leaving = False
        self._task = asyncio.create_task(self._keep())

    @property
    def pid(self) -> int | None:
        """Of the process that lives now."""
        return self.child.pid if self.child is not None else None

    async def leave(self) -> None:
        """Let the process drain, and return when it has ended; no other is started."""
        self._leaving = True
        if self.child is None:
            self._task.cancel()
        self.terminate()
        with anyio.move_on_after(self.config.drain_grace_s + LEAVE_GRACE_S):
            await asyncio.wait([self._task])
        await self.end()

    async def end(self) -> None:
        """Politely, then by SIGKILL (which also ends a stopped one)."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self.child is None:
            return
        self.terminate()
        with anyio.move_on_after(TERMINATE_GRACE_S):
            await self.child.wait()
        self.kill()
        await self.child.wait()

    def terminate(self) -> None:
        """Ask the process to drain and end."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                self.child.terminate()

    def kill(self) -> None:
        """SIGKILL; another one is started unless this one is leaving."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                self.child.kill()

    async def _keep(self) -> None:
        attempt = 0
        while True:
            started_s = anyio.current_time()
            child = await self._start()
            self.child = child
            status = await child.wait()
            self.child = None
            self._supervisor.ended()
            if self._leaving:
                return
            if status in (1, 2):
                self._supervisor.fail(self.config)
                return
            if anyio.current_time() - started_s > STEADY_S:
                attempt = 0
            delay_s = RESTART_DELAYS_S[min(attempt, len(RESTART_DELAYS_S) - 1)]
            event(
                log,
                logging.WARNING,
                "worker process ended",
                role=self.config.role,
                group=self.config.group,
                worker_pid=child.pid,
                status=status,
                restart_in_s=delay_s,
            )
            attempt += 1
            await asyncio.sleep(delay_s)

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "segue_cloud.cli",
            "worker",
            *worker_flags(self.config),
            stdin=PIPE,
            start_new_session=True,  # Ctrl-C reaches us; we then end the children in order
            env=environment_for(share_of(self.config), os.environ),
        )


class Supervisor:
    """Starts workers, restarts dead ones with backoff, ends all of them.

    Every child holds the read end of a pipe of ours as its standard input: if
    this process is killed, the pipe closes and the children leave. Their
    memory is anonymous and goes with them. `ended` is called after each end.
    """

    def __init__(
        self, workers: Sequence[WorkerConfig], *, ended: Callable[[], None] = lambda: None
    ) -> None:
        self.ended = ended
        self._configs = workers
        self._keepers: list[Keeper] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def pids(self) -> list[int]:
        return [keeper.pid for keeper in self._keepers if keeper.pid is not None]

    def start(self) -> None:
        """Start one process for every configuration and keep it alive.

        One that drains and leaves is replaced as well: drained one after the
        other, all workers run a new version. A worker that refuses its
        configuration (exit status 1; 2 for one that cannot be read) is not; `failed` then raises.
        """
        self._keepers = [Keeper(config, self) for config in self._configs]

    async def succeed(
        self,
        old: WorkerConfig,
        new: WorkerConfig,
        ready: Callable[[Keeper, Keeper], Awaitable[None]],
    ) -> None:
        """Start `new`; once `ready` of both returns, let the process of `old` drain and leave.

        What `ready` raises ends the new one and goes on; the old one stays then.
        """
        before = next(keeper for keeper in self._keepers if keeper.config == old)
        after = Keeper(new, self)
        self._keepers.append(after)
        try:
            await ready(before, after)
        except BaseException:
            self._keepers.remove(after)
            await after.end()
            raise
        await before.leave()
        self._keepers.remove(before)

    async def drain(self) -> None:
        """Let every process drain, and return when all have ended; no other is started."""
        await asyncio.gather(*(keeper.leave() for keeper in self._keepers))

    def kill(self) -> None:
        """SIGKILL for every process; others are started in their places."""
        for keeper in self._keepers:
            keeper.kill()

    async def stop(self) -> None:
        """End every child: politely, then by SIGKILL."""
        await asyncio.gather(*(keeper.end() for keeper in self._keepers))
        if self.failed.done():
            self.failed.exception()  # seen by `serve` or not wanted any more

    def fail(self, config: WorkerConfig) -> None:
        """A worker has refused its configuration."""
        if not self.failed.done():
            self.failed.set_exception(
                Unavailable(
                    f"the {config.role} worker cannot start; its own message stands above",
                    reason=WORKER_REFUSED,
                )
            )
