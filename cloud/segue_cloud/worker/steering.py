"""Gives the two workers of a resident process their compute shares, and others when needed.

A share belongs to a process from its start (CUDA MPS knows no other way), so a
new share is a new process: it is started beside the old one, and once it takes
requests, the old one takes no more and leaves when its own are done. Each phase
does so for itself; no request is lost or computed again.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

import anyio
import grpc.aio

from segue_cloud.cluster.shares import REMEMBERED, Shares, Targets, Window, step
from segue_cloud.cluster.supervisor import Keeper, Supervisor
from segue_cloud.config import WorkerConfig
from segue_cloud.security.peers import Peers
from segue_cloud.watch.logs import event
from segue_protocol.stubs.segue.cluster.v1.worker_pb2_grpc import MembershipServiceStub
from segue_protocol.wire import private

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 5.0
POLL_S = 0.2
# For a new process to load, join and be proven.
READY_S = 120.0


class Steering:
    """Looks at what the gateway measured, once a window, and acts on it."""

    def __init__(
        self,
        prefill: WorkerConfig,
        decode: WorkerConfig,
        supervisor: Supervisor,
        peers: Peers,
    ) -> None:
        """`supervisor` keeps `prefill` and `decode`, which differ in their roles only."""
        self._workers = {"prefill": prefill, "decode": decode}
        self._config = config = prefill
        self._targets = Targets(config.ttft_s, config.tpot_s)
        self._supervisor = supervisor
        self._peers = peers

    @property
    def shares(self) -> Shares:
        """What the workers have now."""
        prefill, decode = self._workers.values()
        return Shares(prefill.prefill_share, decode.decode_share)

    async def run(self) -> None:
        """For ever."""
        windows: list[Window] = []
        async with self._peers.channel(self._config.gateway) as channel:
            stub = MembershipServiceStub(channel)
            while True:
                await anyio.sleep(self._config.share_window_s)
                if self._targets == Targets(0.0, 0.0):
                    continue
                window = self._window(await _cluster(stub))
                if window is None:
                    continue
                windows = [*windows, window][-REMEMBERED:]
                wanted = step(windows, self._targets)
                if wanted != self.shares:
                    await self._give(wanted, stub)

    def _window(self, status: private.ClusterStatus | None) -> Window | None:
        if status is None:
            return None
        for group in status.groups:
            if group.name == self._config.group:
                return Window(
                    self.shares,
                    load=group.requests_per_s * group.prefill_s * self.shares.prefill,
                    ttft_s=group.time_to_first_token_s or None,
                    tpot_s=group.time_per_output_token_s or None,
                )
        return None

    async def _give(self, wanted: Shares, stub: MembershipServiceStub) -> None:
        role = "prefill" if wanted.prefill != self.shares.prefill else "decode"
        old = self._workers[role]
        new = replace(old, prefill_share=wanted.prefill, decode_share=wanted.decode)

        async def ready(before: Keeper, after: Keeper) -> None:
            with anyio.fail_after(READY_S):
                while True:
                    if _takes_requests(await _cluster(stub), after.pid):
                        break
                    await anyio.sleep(POLL_S)
            await _tell_to_drain(stub, before.pid)

        try:
            await self._supervisor.succeed(old, new, ready)
        except TimeoutError:
            event(log, logging.WARNING, "no new compute share: its process was never ready")
            return
        self._workers[role] = new
        event(
            log,
            logging.INFO,
            "compute shares changed",
            group=self._config.group,
            prefill_share=wanted.prefill,
            decode_share=wanted.decode,
        )


async def _cluster(stub: MembershipServiceStub) -> private.ClusterStatus | None:
    """None while the gateway is away."""
    try:
        status: private.ClusterStatus = await stub.GetCluster(
            private.GetClusterRequest(), timeout=CALL_TIMEOUT_S
        )
        return status
    except grpc.aio.AioRpcError:
        return None


async def _tell_to_drain(stub: MembershipServiceStub, pid: int | None) -> None:
    """Through the gateway, which offers it nothing from then on: it may leave at once."""
    drain = private.ControlRequest(worker=str(pid), drain=private.Drain())
    # One that is no member, or has no gateway, is offered nothing either.
    with contextlib.suppress(grpc.aio.AioRpcError):
        await stub.Control(drain, timeout=CALL_TIMEOUT_S)


def _takes_requests(status: private.ClusterStatus | None, pid: int | None) -> bool:
    return status is not None and any(
        each.pid == pid and each.ready and not each.draining for each in status.workers
    )
