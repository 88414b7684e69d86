"""How the gateway reaches a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import anyio
import grpc.aio

from segue_cloud.security.peers import Peers
from segue_protocol.errors import Unavailable
from segue_protocol.grpc_streams import GrpcStream, from_rpc_error
from segue_protocol.streams import Stream
from segue_protocol.stubs.segue.cluster.v1.worker_pb2_grpc import WorkerServiceStub
from segue_protocol.wire import private

PrefillStream = Stream[private.PrefillRequest, private.PrefillResponse]
DecodeStream = Stream[private.DecodeRequest, private.DecodeResponse]

STATUS_TIMEOUT_S = 2.0

NOBODY = Peers()  # knows no worker and is known by none


class WorkerLink(Protocol):
    """Opens streams to one worker. What a stream holds there ends with the stream.

    Opening one raises Unavailable (WORKER_GONE) once the worker was given up.
    """

    def prefill(self) -> PrefillStream: ...

    def decode(self) -> DecodeStream: ...

    async def status(self) -> private.WorkerStatus:
        """The worker's counts now. Raises Unavailable or DeadlineExceeded."""
        ...

    async def aclose(self, grace_s: float = 0.0) -> None:
        """Give the worker up: every stream to it raises Unavailable, after `grace_s` at the latest.

        Streams that end meanwhile end well: a worker that leaves has sent all it
        had, and not everything may have been read.
        """
        ...


class GrpcLink:
    """A worker process at an address. Raises InvalidRequest where `peers` may not call."""

    def __init__(self, address: str, peers: Peers = NOBODY) -> None:
        self._channel = peers.channel(address)
        self._metadata = peers.metadata
        self._stub = WorkerServiceStub(self._channel)
        self._calls: set[grpc.aio.Call] = set()

    def prefill(self) -> PrefillStream:
        return self._open(self._stub.Prefill)

    def decode(self) -> DecodeStream:
        return self._open(self._stub.Decode)

    async def status(self) -> private.WorkerStatus:
        try:
            status: private.WorkerStatus = await self._stub.GetStatus(
                private.GetStatusRequest(), timeout=STATUS_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return status

    async def aclose(self, grace_s: float = 0.0) -> None:
        with anyio.move_on_after(grace_s):
            for call in list(self._calls):
                await call.code()  # known once its last message was read
        await self._channel.close()

    def _open(self, begin: Callable[..., Any]) -> GrpcStream[Any, Any]:
        try:
            call = begin(metadata=self._metadata)
        except grpc.aio.UsageError as error:
            raise Unavailable("the worker was given up", reason="WORKER_GONE") from error
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return GrpcStream(call)
