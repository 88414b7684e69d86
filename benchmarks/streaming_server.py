"""The server side of the streaming benchmark: one process, the gateway or a bare stream.

    python -m benchmarks.streaming_server gateway|bare SOURCE

Prints its port. Both make the same messages at the same moments; in the
gateway they come from stub workers in its own process and go the gateway's
whole way: attempt, session, log, reader. SOURCE says when a token is made:

- lockstep: when the message before it was written, so one token a message;
- free: as fast as the event loop turns (the gateway may coalesce);
- paced: 20 a second and stream;
- idle: only the first one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import grpc.aio

from segue_cloud.cluster.join import JoinHandler
from segue_cloud.cluster.links import DecodeStream, GrpcLink, PrefillStream
from segue_cloud.cluster.members import Member, Membership
from segue_cloud.gateway.attempt import Budget
from segue_cloud.gateway.gateway import Gateway, GatewayLimits
from segue_cloud.gateway.server import GatewayServer
from segue_cloud.kv.layout import KvLayout
from segue_protocol.grpc_streams import SERVER_OPTIONS
from segue_protocol.reference import reference_identity
from segue_protocol.streams import LocalStream
from segue_protocol.stubs.segue.v1 import split_inference_pb2_grpc
from segue_protocol.wire import private, public

SOURCES = ("lockstep", "free", "paced", "idle")
PACE_S = 0.05
LIMITS = GatewayLimits(
    budget=Budget(first_token_s=3600.0, inter_token_s=3600.0), heartbeat_s=3600.0
)


def stamp() -> int:
    """A token id that says when it was made: microseconds of a clock all processes share."""
    return time.monotonic_ns() // 1000 % 2**31


async def moments(source: str, tokens: int, written: asyncio.Semaphore) -> AsyncIterator[int]:
    """Indices of the tokens after the first, each at the moment it is to be made."""
    for index in range(1, tokens):
        if source == "lockstep":
            await written.acquire()
        elif source == "free":
            await asyncio.sleep(0)
        elif source == "paced":
            await asyncio.sleep(PACE_S)
        else:
            await asyncio.Event().wait()
        yield index


class StubWorkers:
    """A prefill and a decode worker that answer at once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.written: dict[str, asyncio.Semaphore] = {}

    def prefill(self) -> PrefillStream:
        return LocalStream(self._prefill)

    def decode(self) -> DecodeStream:
        return LocalStream(self._decode)

    async def status(self) -> private.WorkerStatus:
        return private.WorkerStatus()

    async def aclose(self) -> None:
        pass

    async def _prefill(
        self, requests: AsyncIterator[private.PrefillRequest]
    ) -> AsyncGenerator[private.PrefillResponse, None]:
        job = (await anext(requests)).job
        yield private.PrefillResponse(accepted=private.Accepted())
        first = private.Prefilled(epoch=job.epoch, index=0, token_id=stamp())
        yield private.PrefillResponse(prefilled=first)
        await anext(requests)

    async def _decode(
        self, requests: AsyncIterator[private.DecodeRequest]
    ) -> AsyncGenerator[private.DecodeResponse, None]:
        reserve = (await anext(requests)).reserve
        written = self.written.setdefault(reserve.generation_id, asyncio.Semaphore(0))
        yield private.DecodeResponse(reserved=private.Reserved())
        admit = (await anext(requests)).admit
        yield private.DecodeResponse(pulled=private.Pulled())
        async for index in moments(self._source, admit.max_tokens, written):
            yield private.DecodeResponse(
                tokens=private.DecodedTokens(
                    epoch=admit.epoch, index=index, ids=[stamp()], logprobs=[-1.0]
                )
            )
        yield private.DecodeResponse(ended=private.Ended(reason=public.FINISH_REASON_LENGTH))


class WatchedGateway(Gateway):
    """Tells the source when a message of tokens has been written."""

    def __init__(self, workers: StubWorkers) -> None:
        membership = Membership()
        layout = KvLayout(num_layers=1, num_kv_heads=1, head_dim=1, dtype="int64")
        for role in (private.ROLE_PREFILL, private.ROLE_DECODE):
            member = Member(role, 0, bytes(16), reference_identity(), layout, 2**30, workers)
            membership.add(member)
        super().__init__(membership, limits=LIMITS)
        self._workers = workers

    async def generate(
        self, requests: AsyncIterator[public.GenerateRequest], *, tenant: str = ""
    ) -> AsyncGenerator[public.GenerateResponse, None]:
        written = asyncio.Semaphore(0)
        async with aclosing(super().generate(requests, tenant=tenant)) as responses:
            async for response in responses:
                if response.HasField("started"):
                    key = response.started.generation_id
                    written = self._workers.written.setdefault(key, written)
                yield response
                if response.HasField("tokens"):
                    written.release()


class BareServicer(split_inference_pb2_grpc.SplitInferenceServiceServicer):
    """Equal messages straight to gRPC."""

    def __init__(self, source: str) -> None:
        self._source = source

    async def Generate(
        self,
        requests: AsyncIterator[public.GenerateRequest],
        context: grpc.aio.ServicerContext[public.GenerateRequest, public.GenerateResponse],
    ) -> None:
        first = await anext(aiter(requests))
        written = asyncio.Semaphore(0)
        await context.write(public.GenerateResponse(started=public.Started()))
        await context.write(_token(0))
        written.release()
        async for index in moments(self._source, first.start.limits.max_tokens, written):
            await context.write(_token(index))
            written.release()
        await context.write(public.GenerateResponse(finish=public.Finish()))


def _token(index: int) -> public.GenerateResponse:
    return public.GenerateResponse(tokens=public.Tokens(index=index, ids=[stamp()]))


async def serve(side: str, source: str) -> None:
    """Listen on a free loopback port until the standard input ends."""
    if side == "gateway":
        gateway = WatchedGateway(StubWorkers(source))
        server = GatewayServer(gateway, JoinHandler(gateway.membership, GrpcLink))
        port = (await server.start("127.0.0.1", 0, 0, None)).public
    else:
        bare = grpc.aio.server(options=list(SERVER_OPTIONS))
        split_inference_pb2_grpc.add_SplitInferenceServiceServicer_to_server(
            BareServicer(source), bare
        )
        port = bare.add_insecure_port("127.0.0.1:0")
        await bare.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    if side == "gateway":
        await server.stop(0)
    else:
        await bare.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
