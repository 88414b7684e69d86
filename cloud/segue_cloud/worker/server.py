"""One worker process: gRPC service, membership, orderly end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import grpc.aio

from segue_cloud.engine.base import CloudEngine
from segue_cloud.security.peers import Peers
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.errors import SegueError, Unavailable, Unsupported
from segue_protocol.grpc_streams import (
    SERVER_OPTIONS,
    GrpcStream,
    serve_stream,
    serve_unary,
)
from segue_protocol.hosts import with_port
from segue_protocol.streams import Stream
from segue_protocol.stubs.segue.cluster.v1 import worker_pb2_grpc
from segue_protocol.version import protocol_version
from segue_protocol.wire import private

Worker = PrefillWorker | DecodeWorker


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """`segue.cluster.v1.WorkerService` over one worker; the other role is refused."""

    def __init__(self, worker: Worker, status: Callable[[], private.WorkerStatus]) -> None:
        self._worker = worker
        self._status = status

    async def Prefill(
        self,
        requests: AsyncIterator[private.PrefillRequest],
        context: grpc.aio.ServicerContext[private.PrefillRequest, private.PrefillResponse],
    ) -> None:
        worker = self._worker
        handler = worker.prefill if isinstance(worker, PrefillWorker) else _not_a_prefill_worker
        await serve_stream(handler, requests, context)

    async def Decode(
        self,
        requests: AsyncIterator[private.DecodeRequest],
        context: grpc.aio.ServicerContext[private.DecodeRequest, private.DecodeResponse],
    ) -> None:
        worker = self._worker
        handler = worker.decode if isinstance(worker, DecodeWorker) else _not_a_decode_worker
        await serve_stream(handler, requests, context)

    async def GetStatus(
        self,
        request: private.GetStatusRequest,
        context: grpc.aio.ServicerContext[private.GetStatusRequest, private.WorkerStatus],
    ) -> private.WorkerStatus:
        async def answer(_: private.GetStatusRequest) -> private.WorkerStatus:
            return self._status()

        return await serve_unary(answer, request, context)


async def _not_a_prefill_worker(
    requests: AsyncIterator[private.PrefillRequest],
) -> AsyncGenerator[private.PrefillResponse, None]:
    raise Unsupported("this worker decodes; send prefill jobs to a prefill worker")
    yield private.PrefillResponse()


async def _not_a_decode_worker(
    requests: AsyncIterator[private.DecodeRequest],
) -> AsyncGenerator[private.DecodeResponse, None]:
    raise Unsupported("this worker prefills; send decode requests to a decode worker")
    yield private.DecodeResponse()


class WorkerServer:
    """Serves one worker and keeps it a member of one gateway."""

    def __init__(
        self,
        worker: Worker,
        engine: CloudEngine,
        incarnation: bytes,
        peers: Peers,
        *,
        group: str = "default",
    ) -> None:
        self._worker = worker
        self._group = group
        self._engine = engine
        self._incarnation = incarnation
        self._peers = peers
        self._server = grpc.aio.server(
            options=list(SERVER_OPTIONS), interceptors=peers.server_interceptors()
        )
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(
            WorkerServicer(worker, self.status), self._server
        )
        self._address = ""

    @property
    def address(self) -> str:
        """Where the gateway is told to call; empty before `start`."""
        return self._address

    def status(self) -> private.WorkerStatus:
        """The worker's counts, with who it is and whether they add up."""
        status = self._worker.status()
        status.pid = os.getpid()
        status.incarnation = self._incarnation
        status.group = self._group
        try:
            self._worker.check_integrity()
        except SegueError as error:
            status.integrity_error = error.message
        return status

    async def start(self, host: str, port: int, advertised_host: str) -> None:
        """Listen; a port 0 takes a free one. The gateway is told `advertised_host`.

        Raises InvalidRequest where `peers` may not listen, Unavailable on a taken address.
        """
        bound = self._peers.listen(self._server, host, port)
        self._address = with_port(advertised_host, bound)
        await self._server.start()

    async def serve(self, gateway_address: str) -> None:
        """Be a member until the gateway goes. Raises what it refuses us for."""
        async with self._peers.channel(gateway_address) as channel:
            stub = worker_pb2_grpc.MembershipServiceStub(channel)
            stream: Stream[private.JoinRequest, private.JoinResponse] = GrpcStream(
                stub.Join(metadata=self._peers.metadata)
            )
            await stream.send(private.JoinRequest(register=self._register()))
            joined = await stream.receive()
            if joined is None:
                raise Unavailable("the gateway ended the join stream without an answer")
            while True:
                await stream.send(private.JoinRequest(heartbeat=self.status()))
                await asyncio.sleep(joined.lease_s / 3)

    def _register(self) -> private.Register:
        status = self._worker.status()
        engine = self._engine
        return private.Register(
            role=status.role,
            address=self._address,
            pid=os.getpid(),
            incarnation=self._incarnation,
            protocol=protocol_version(),
            identity=engine.identity.to_wire(),
            layout=engine.layout.to_wire(),
            max_context_tokens=engine.max_context_tokens,
            slots=status.slots,
            pages=status.pages,
            group=self._group,
        )

    async def stop(self, grace_s: float) -> None:
        await self._server.stop(grace_s)
