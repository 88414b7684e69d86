"""How the gateway reaches a worker."""

from __future__ import annotations

from typing import Protocol

import grpc.aio

from segue_cloud.security.peers import Peers
from segue_protocol.grpc_streams import GrpcStream, from_rpc_error
from segue_protocol.streams import Stream
from segue_protocol.stubs.segue.cluster.v1.worker_pb2_grpc import WorkerServiceStub
from segue_protocol.wire import private

PrefillStream = Stream[private.PrefillRequest, private.PrefillResponse]
DecodeStream = Stream[private.DecodeRequest, private.DecodeResponse]


STATUS_TIMEOUT_S = 2.0

NOBODY = Peers()  # knows no worker and is known by none


class WorkerLink(Protocol):
    """Opens streams to one worker. What a stream holds there ends with the stream."""

    def prefill(self) -> PrefillStream: ...

    def decode(self) -> DecodeStream: ...

    async def status(self) -> private.WorkerStatus:
        """The worker's counts now. Raises Unavailable or DeadlineExceeded."""
        ...

    async def aclose(self) -> None:
        """Give the worker up: every stream to it raises Unavailable."""
        ...


class GrpcLink:
    """A worker process at an address. Raises InvalidRequest where `peers` may not call."""

    def __init__(self, address: str, peers: Peers = NOBODY) -> None:
        self._channel = peers.channel(address)
        self._metadata = peers.metadata
        self._stub = WorkerServiceStub(self._channel)

    def prefill(self) -> PrefillStream:
        return GrpcStream(self._stub.Prefill(metadata=self._metadata))

    def decode(self) -> DecodeStream:
        return GrpcStream(self._stub.Decode(metadata=self._metadata))

    async def status(self) -> private.WorkerStatus:
        try:
            status: private.WorkerStatus = await self._stub.GetStatus(
                private.GetStatusRequest(), timeout=STATUS_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return status

    async def aclose(self) -> None:
        # At once: a frozen worker's streams would stay open and their requests wait.
        await self._channel.close()
