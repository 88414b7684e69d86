"""One worker process: gRPC service, membership, orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

import anyio
import grpc.aio

from segue_cloud.cluster.reasons import PROBE_FAILED
from segue_cloud.engine.base import CloudEngine
from segue_cloud.security.peers import Peers
from segue_cloud.worker.aggregated import AggregatedWorker
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.host import host_id
from segue_cloud.worker.intake import Intake
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.errors import SegueError, Unavailable, Unsupported
from segue_protocol.grpc_streams import (
    SERVER_OPTIONS,
    GrpcStream,
    serve_stream,
    serve_unary,
)
from segue_protocol.hosts import with_port
from segue_protocol.streams import Handler, Received, Sent, Stream
from segue_protocol.stubs.segue.cluster.v1 import worker_pb2_grpc
from segue_protocol.version import protocol_version
from segue_protocol.wire import private

log = logging.getLogger(__name__)

Worker = PrefillWorker | DecodeWorker | AggregatedWorker

# Between two tries to join. A gateway that restarts is back in a second or two.
JOIN_DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0)
# After an eviction the gateway has only to close its streams.
EVICTED_GRACE_S = 2.0


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """`segue.cluster.v1.WorkerService` over one worker; the other role is refused."""

    def __init__(
        self, worker: Worker, intake: Intake, status: Callable[[], private.WorkerStatus]
    ) -> None:
        self._worker = worker
        self._intake = intake
        self._status = status

    async def Prefill(
        self,
        requests: AsyncIterator[private.PrefillRequest],
        context: grpc.aio.ServicerContext[private.PrefillRequest, private.PrefillResponse],
    ) -> None:
        worker = self._worker
        handler = _not_a_prefill_worker if isinstance(worker, DecodeWorker) else worker.prefill
        await serve_stream(self._through_intake(handler), requests, context)

    async def Decode(
        self,
        requests: AsyncIterator[private.DecodeRequest],
        context: grpc.aio.ServicerContext[private.DecodeRequest, private.DecodeResponse],
    ) -> None:
        worker = self._worker
        handler = _not_a_decode_worker if isinstance(worker, PrefillWorker) else worker.decode
        await serve_stream(self._through_intake(handler), requests, context)

    async def GetStatus(
        self,
        request: private.GetStatusRequest,
        context: grpc.aio.ServicerContext[private.GetStatusRequest, private.WorkerStatus],
    ) -> private.WorkerStatus:
        async def answer(_: private.GetStatusRequest) -> private.WorkerStatus:
            return self._status()

        return await serve_unary(answer, request, context)

    def _through_intake(self, handler: Handler[Sent, Received]) -> Handler[Sent, Received]:
        async def inside(requests: AsyncIterator[Sent]) -> AsyncGenerator[Received, None]:
            with self._intake.inside():
                async with aclosing(handler(requests)) as responses:
                    async for response in responses:
                        yield response

        return inside


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
        transfers: Sequence[str] = ("shm",),
        pool: bytes = b"",
    ) -> None:
        """`pool`: the incarnation of the page pool that prefill and decode share here."""
        self._worker = worker
        self._transfers = transfers
        self._pool = pool
        self._group = group
        self._engine = engine
        self._incarnation = incarnation
        self._intake = Intake()
        self._peers = peers
        self._server = grpc.aio.server(
            options=list(SERVER_OPTIONS), interceptors=peers.server_interceptors()
        )
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(
            WorkerServicer(worker, self._intake, self.status), self._server
        )
        self._address = ""
        self._commands: asyncio.Queue[private.JoinResponse] = asyncio.Queue()
        self._beat_now = asyncio.Event()

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
        status.draining = self._intake.closed
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
        """Be a member, and join again whenever the membership ends.

        Never returns. Raises what the gateway refuses us for: another version,
        other weights, another layout (never retried), a failed probe.
        """
        tries = 0
        async with self._peers.channel(gateway_address) as channel:
            while True:
                stub = worker_pb2_grpc.MembershipServiceStub(channel)
                stream = GrpcStream(stub.Join(metadata=self._peers.metadata))
                try:
                    lease_s = await self._join(stream)
                    tries = 0
                    await self._stay(stream, lease_s)
                except SegueError as error:
                    if not error.retryable or error.reason == PROBE_FAILED:
                        raise
                    delay_s = JOIN_DELAYS_S[min(tries, len(JOIN_DELAYS_S) - 1)]
                    tries += 1
                    log.warning(
                        "not a member of %s: %s; trying again in %.1f s",
                        gateway_address,
                        error.message,
                        delay_s,
                    )
                finally:
                    await stream.aclose()
                await asyncio.sleep(delay_s)

    async def told(self) -> private.JoinResponse:
        """The gateway's next command: `drain` or `switch_role`."""
        return await self._commands.get()

    async def drain(self, grace_s: float) -> None:
        """Take nothing new; return when nobody holds anything here.

        What still decodes or is parked after `grace_s` is evicted, and the
        gateway goes on with it elsewhere. Needs the batch to run meanwhile.
        """
        self._intake.close()
        self._beat_now.set()
        with anyio.move_on_after(grace_s) as grace:
            await self._intake.empty()
        if grace.cancelled_caught:
            if not isinstance(self._worker, PrefillWorker):
                self._worker.batch.evict_all()
            with anyio.move_on_after(EVICTED_GRACE_S):
                await self._intake.empty()

    async def _join(self, stream: Stream[private.JoinRequest, private.JoinResponse]) -> float:
        await stream.send(private.JoinRequest(register=self.registration()))
        joined = await stream.receive()
        if joined is None:
            raise Unavailable("the gateway ended the join stream without an answer")
        return joined.lease_s

    async def _stay(
        self, stream: Stream[private.JoinRequest, private.JoinResponse], lease_s: float
    ) -> None:
        beating = asyncio.create_task(self._beat(stream, lease_s / 3))
        try:
            while (command := await stream.receive()) is not None:
                self._commands.put_nowait(command)
            raise Unavailable("the gateway ended the membership")
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(
        self, stream: Stream[private.JoinRequest, private.JoinResponse], every_s: float
    ) -> None:
        """Send heartbeats; the end of the stream is the receiver's to notice."""
        while True:
            self._beat_now.clear()
            await stream.send(private.JoinRequest(heartbeat=self.status()))
            with anyio.move_on_after(every_s):
                await self._beat_now.wait()

    def registration(self) -> private.Register:
        """What the gateway is told of this worker."""
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
            host_id=host_id(),
            transfers=self._transfers,
            pool=self._pool,
        )

    async def stop(self, grace_s: float) -> None:
        await self._server.stop(grace_s)
