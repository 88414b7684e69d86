"""Giving a worker up: what it sent before it left is still read; what never ends is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import grpc.aio
import pytest

from segue_cloud.cluster.links import DecodeStream, GrpcLink
from segue_protocol.errors import Unavailable
from segue_protocol.stubs.segue.cluster.v1 import worker_pb2_grpc
from segue_protocol.wire import private

MESSAGES = 64
DEADLINE_S = 20.0


class Worker(worker_pb2_grpc.WorkerServiceServicer):
    """Sends its messages at once, and then either ends or stays."""

    def __init__(self, ends: bool) -> None:
        self._ends = ends
        self.sent = asyncio.Event()

    async def Decode(
        self, requests: AsyncIterator[private.DecodeRequest], context: object
    ) -> AsyncIterator[private.DecodeResponse]:
        for index in range(MESSAGES):
            tokens = private.DecodedTokens(index=index, ids=[index])
            yield private.DecodeResponse(tokens=tokens)
        self.sent.set()
        if not self._ends:
            await asyncio.Event().wait()


@asynccontextmanager
async def _link(worker: Worker) -> AsyncIterator[GrpcLink]:
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(worker, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with anyio.fail_after(DEADLINE_S):
            yield GrpcLink(f"127.0.0.1:{port}")
    finally:
        await server.stop(None)


async def _read(stream: DecodeStream) -> int:
    count = 0
    while await stream.receive() is not None:
        count += 1
    return count


def test_what_was_sent_before_the_worker_left_is_read() -> None:
    async def main() -> None:
        worker = Worker(ends=True)
        async with _link(worker) as link:
            stream = link.decode()
            assert await stream.receive() is not None
            await worker.sent.wait()
            closing = asyncio.create_task(link.aclose(DEADLINE_S))
            await asyncio.sleep(0)
            assert await _read(stream) == MESSAGES - 1
            await closing
            with pytest.raises(Unavailable) as raised:
                link.decode()
            assert raised.value.reason == "WORKER_GONE"

    asyncio.run(main())


@pytest.mark.parametrize("grace_s", [0.0, 0.05])
def test_a_stream_that_does_not_end_is_cut_off(grace_s: float) -> None:
    async def main() -> None:
        worker = Worker(ends=False)
        async with _link(worker) as link:
            stream = link.decode()
            for _ in range(MESSAGES):
                await stream.receive()
            await link.aclose(grace_s)
            with pytest.raises(Unavailable):
                await stream.receive()

    asyncio.run(main())
