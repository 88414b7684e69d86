"""A caller's `traceparent` reaches the session, whatever the listener."""

from __future__ import annotations

import grpc.aio
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from segue_cloud.gateway.session import Session
from segue_cloud.watch.base import Watch
from segue_cloud.watch.record import AnswerRecord
from segue_protocol import frames
from segue_protocol.frames import Form
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from tests.contract.transports import Rig, rig, run

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Parents(Watch):
    """Keeps what came along with every answer that ended."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def ended(self, session: Session, answer: AnswerRecord) -> None:
        self.seen.append(session.trace_parent)


async def _over_grpc(each: Rig, headers: dict[str, str]) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{each.port}") as channel:
        call = SplitInferenceServiceStub(channel).Generate(metadata=tuple(headers.items()))
        await call.write(each.start())
        while not (await call.read()).HasField("finish"):
            pass
        await call.done_writing()


async def _over_websocket(each: Rig, headers: dict[str, str]) -> None:
    url = f"ws://127.0.0.1:{each.port}{frames.GENERATE_PATH}"
    protocols = [Subprotocol(Form.PROTO.value)]
    async with connect(
        url, proxy=None, subprotocols=protocols, additional_headers=headers
    ) as connection:
        await connection.send(frames.encode_request(each.start(), Form.PROTO))
        while not frames.decode_response(await connection.recv(), Form.PROTO).HasField("finish"):
            pass


@pytest.mark.parametrize("kind", ["grpc", "websocket"])
def test_it_belongs_to_its_own_call(kind: str) -> None:
    parents = Parents()
    call = _over_grpc if kind == "grpc" else _over_websocket

    async def main() -> None:
        async with rig(kind, watch=parents) as each:
            await call(each, {"traceparent": SENT})
            await call(each, {})

    run(main())
    assert parents.seen == [SENT, ""]
