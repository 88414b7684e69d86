"""What only WebSocket has: raw frames, and connections that freeze."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from segue_cloud.gateway import websocket as cloud_side
from segue_cloud.gateway.gateway import GatewayLimits
from segue_device.transports import websocket as device_side
from segue_protocol import frames
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.frames import Form
from segue_protocol.reference import STOP_ID
from segue_protocol.streams import MAX_MESSAGE_BYTES
from segue_protocol.wire import public
from tests.byte_proxy import Proxy
from tests.contract.transports import (
    PROMPT,
    Rig,
    error_of,
    ids_of,
    read_until,
    rig,
    run,
    until,
)

RAW: dict[str, Any] = {"compression": None, "max_size": None, "proxy": None}


def _raw(each: Rig, form: Form = Form.JSON) -> connect:
    url = f"ws://127.0.0.1:{each.port}{frames.GENERATE_PATH}"
    return connect(url, subprotocols=[Subprotocol(form.value)], **RAW)


async def _read_all(connection: ClientConnection, into: list[frames.Frame]) -> None:
    while True:
        into.append(await connection.recv())


async def _last(connection: ClientConnection, form: Form) -> tuple[SegueError, int]:
    """The error frame and the close code that end a connection."""
    received: list[frames.Frame] = []
    with pytest.raises(ConnectionClosed) as closed:
        await _read_all(connection, received)
    assert closed.value.rcvd is not None
    with pytest.raises(SegueError) as error:
        frames.decode_response(received[-1], form)
    assert closed.value.rcvd.reason == error.value.reason
    return error.value, closed.value.rcvd.code


def test_a_client_without_an_sdk() -> None:
    """JSON by hand, as a web page would write and read it."""

    async def main() -> None:
        async with rig("websocket") as each, _raw(each) as socket:
            identity = each.cloud.membership.identity
            assert identity is not None
            start = {
                "protocol": {"major": 1},
                "identity": json.loads(frames.to_json(identity.to_wire())),
                "promptTokenIds": {"ids": list(PROMPT)},
                "sampling": {"logitBias": {str(STOP_ID): -100}},
                "limits": {"maxTokens": 5},
                "credit": {"through": 5},
            }
            await socket.send(json.dumps({"start": start}))
            messages = [json.loads(text)["response"] async for text in socket]
            assert [set(message) for message in messages[:2]] == [{"started"}, {"tokens"}]
            tokens = [message["tokens"] for message in messages if "tokens" in message]
            assert tokens[0]["index"] == 0
            assert sum(len(each["ids"]) for each in tokens) == 5
            assert messages[-1]["finish"]["reason"] == "FINISH_REASON_LENGTH"

    run(main())


@pytest.mark.parametrize(
    ("form", "frame"),
    [
        (Form.PROTO, b"\xff\xff"),
        (Form.PROTO, "{}"),
        (Form.JSON, b"\0"),
        (Form.JSON, "{"),
        (Form.JSON, '{"start": {"limits": {"maxTokns": 3}}}'),
    ],
)
def test_a_malformed_frame(form: Form, frame: frames.Frame) -> None:
    async def main() -> None:
        async with rig("websocket") as each, _raw(each, form) as socket:
            await socket.send(frame)
            error, code = await _last(socket, form)
            assert (error.code, error.reason, code) == ("INTERNAL", "MALFORMED_FRAME", 4413)

    run(main())


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\xff\xff", 4413), (b"\0" * (MAX_MESSAGE_BYTES + 1), 1009)],
    ids=["malformed", "oversized"],
)
def test_a_bad_frame_in_mid_answer_is_no_cancel(frame: bytes, code: int) -> None:
    async def main() -> None:
        async with rig("websocket", step_s=0.01) as each:
            socket = await _raw(each, Form.PROTO)
            await socket.send(frames.encode_request(each.start(), Form.PROTO))
            first = frames.decode_response(await socket.recv(), Form.PROTO)
            sending = asyncio.create_task(socket.send(frame))
            with pytest.raises(ConnectionClosed) as closed:
                await _read_all(socket, [])
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code
            await asyncio.gather(sending, return_exceptions=True)
            again = await each.resumed(first.started, 0)
            assert len(ids_of(await read_until(again, "finish"))) == 40

    run(main())


def test_an_error_is_a_last_frame_and_a_close_code() -> None:
    async def main() -> None:
        async with rig("websocket") as each, _raw(each) as socket:
            await socket.send('{"resume": {"generationId": "none"}}')
            error, code = await _last(socket, Form.JSON)
            assert (error.code, error.reason, code) == ("NOT_FOUND", "UNKNOWN_GENERATION", 4405)

    run(main())


def test_a_half_close_of_tcp_is_no_cancel() -> None:
    async def main() -> None:
        async with rig("websocket", step_s=0.005) as each:
            async with _raw(each, Form.PROTO) as socket:
                await socket.send(frames.encode_request(each.start(), Form.PROTO))
                first = frames.decode_response(await socket.recv(), Form.PROTO)
                socket.transport.write_eof()
                await socket.wait_closed()
            again = await each.resumed(first.started, 0)
            assert len(ids_of(await read_until(again, "finish"))) == 40

    run(main())


def test_a_network_that_freezes_is_noticed_on_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (cloud_side, device_side):
        monkeypatch.setattr(side, "PING_INTERVAL_S", 0.05)
        monkeypatch.setattr(side, "PING_TIMEOUT_S", 0.2)
        monkeypatch.setattr(side, "CLOSE_TIMEOUT_S", 0.1)
    limits = GatewayLimits(heartbeat_s=600.0, unclaimed_s=0.05)

    async def main() -> None:
        async with rig("websocket", limits=limits) as each, Proxy(each.port) as proxy:
            stream = await each.opened_stream(proxy.port, credit=public.Credit(through=2))
            await read_until(stream, "tokens")
            proxy.freeze()
            error = await error_of(stream)
            assert (error.code, error.reason) == ("UNAVAILABLE", "CONNECTION_LOST")
            await until(lambda: not each.cloud.gateway.sessions)

    run(main())


def test_a_cloud_with_a_smaller_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection ends under a message that is still being written."""
    monkeypatch.setattr(frames, "require_size", lambda size_bytes: None)

    async def main() -> None:
        async with rig("websocket") as each:
            stream = await each.transport().open()
            sending = asyncio.create_task(
                stream.send(each.start(prompt_text="a" * MAX_MESSAGE_BYTES))
            )
            with pytest.raises(InvalidRequest) as refused:
                await stream.receive()
            assert refused.value.reason == "MESSAGE_TOO_LARGE"
            with pytest.raises(InvalidRequest):
                await stream.send(each.start())
            await stream.aclose()
            await asyncio.gather(sending, return_exceptions=True)

    run(main())
