"""`segue-cloud status`, `drain` and `switch`: a word with a running gateway, from outside."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import grpc.aio

from segue_cloud.cluster.show import show
from segue_cloud.config import ControlConfig
from segue_cloud.security.peers import peers_of_worker
from segue_protocol.errors import SegueError
from segue_protocol.grpc_streams import from_rpc_error
from segue_protocol.stubs.segue.cluster.v1.worker_pb2_grpc import MembershipServiceStub
from segue_protocol.wire import private

CALL_TIMEOUT_S = 5.0
POLL_S = 0.2

Command = Callable[[MembershipServiceStub], Awaitable[str]]


async def status(stub: MembershipServiceStub, *, as_json: bool) -> str:
    """Who works and what was measured."""
    return show(await _cluster(stub), as_json=as_json)


async def drain(stub: MembershipServiceStub, worker: str) -> str:
    """Tell a worker to drain and wait until it has left.

    Raises NotFound or InvalidRequest for a worker that is not clear.
    """
    name = await _told(stub, private.ControlRequest(worker=worker, drain=private.Drain()))
    return f"{name} has left"


async def switch(stub: MembershipServiceStub, worker: str, role: str) -> str:
    """Tell a worker to come back in another role and wait until its old self has left."""
    to = private.SwitchRole(role=f"ROLE_{role.upper()}")
    name = await _told(stub, private.ControlRequest(worker=worker, switch_role=to))
    return f"{name} has left and joins again as a {role} worker"


async def _told(stub: MembershipServiceStub, request: private.ControlRequest) -> str:
    told: private.ControlResponse = await stub.Control(request, timeout=CALL_TIMEOUT_S)
    while True:
        workers = (await _cluster(stub)).workers
        if all(each.incarnation != told.incarnation for each in workers):
            return told.worker
        await asyncio.sleep(POLL_S)


async def _cluster(stub: MembershipServiceStub) -> private.ClusterStatus:
    found: private.ClusterStatus = await stub.GetCluster(
        private.GetClusterRequest(), timeout=CALL_TIMEOUT_S
    )
    return found


async def call(config: ControlConfig, command: Command) -> str:
    """Run a command over a channel that the gateway trusts.

    Raises InvalidRequest or Unauthenticated, Unavailable without a gateway.
    """
    async with peers_of_worker(config).channel(config.gateway) as channel:
        try:
            return await command(MembershipServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


def main(config: ControlConfig, name: str, worker: str, role: str | None) -> int:
    """Run one command; returns the exit status: 1 when it failed, or nobody answers."""
    commands: dict[str, Command] = {
        "status": partial(status, as_json=config.json),
        "drain": partial(drain, worker=worker),
        "switch": partial(switch, worker=worker, role=role or ""),
    }
    try:
        print(asyncio.run(call(config, commands[name])))
    except SegueError as error:
        print(
            f"segue-cloud: {config.gateway or 'no --gateway'}: {error.message}; expected HOST:PORT "
            "of a gateway's worker port, which `segue-cloud serve` prints",
            file=sys.stderr,
        )
        return 1
    return 0
