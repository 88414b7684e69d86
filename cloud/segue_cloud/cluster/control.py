"""`segue-cloud drain`: a command to a running gateway, from outside."""

from __future__ import annotations

import asyncio
import sys

import grpc.aio

from segue_protocol.errors import SegueError
from segue_protocol.grpc_streams import CHANNEL_OPTIONS, from_rpc_error
from segue_protocol.stubs.segue.cluster.v1.worker_pb2_grpc import MembershipServiceStub
from segue_protocol.wire import private

CALL_TIMEOUT_S = 5.0
POLL_S = 0.2


async def drain(gateway: str, worker: str) -> str:
    """Tell a worker to drain and wait until it has left; returns its name.

    Raises NotFound or InvalidRequest for a worker that is not clear,
    Unavailable without a gateway.
    """
    async with grpc.aio.insecure_channel(gateway, options=list(CHANNEL_OPTIONS)) as channel:
        stub = MembershipServiceStub(channel)
        try:
            told: private.ControlResponse = await stub.Control(
                private.ControlRequest(worker=worker, drain=private.Drain()),
                timeout=CALL_TIMEOUT_S,
            )
            while True:
                cluster: private.ClusterStatus = await stub.GetCluster(
                    private.GetClusterRequest(), timeout=CALL_TIMEOUT_S
                )
                if all(each.incarnation != told.incarnation for each in cluster.workers):
                    return told.worker
                await asyncio.sleep(POLL_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


def main(gateway: str, worker: str) -> int:
    """Drain one worker; returns the exit status."""
    try:
        name = asyncio.run(drain(gateway, worker))
    except SegueError as error:
        print(f"segue-cloud: {error.message}", file=sys.stderr)
        return 1
    print(f"{name} has left")
    return 0
