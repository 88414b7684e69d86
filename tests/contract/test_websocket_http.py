"""The WebSocket port as an HTTP server, and servers that are not Segue's."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from segue_device.transports import transport_for
from segue_device.transports.grpc import GrpcTransport
from segue_device.transports.websocket import WebSocketTransport
from segue_protocol import frames
from segue_protocol.errors import (
    InvalidRequest,
    ProtocolError,
    SegueError,
    Unauthenticated,
    Unavailable,
)
from segue_protocol.streams import MAX_MESSAGE_BYTES
from segue_protocol.wire import public
from tests.byte_proxy import Proxy
from tests.contract.transports import Rig, ids_of, read_until, rig, run

OURS = [Subprotocol("segue.v1.json")]
FOREIGN = [Subprotocol("graphql-ws")]


def _connect(each: Rig, path: str = frames.GENERATE_PATH, **options: Any) -> connect:
    return connect(f"ws://127.0.0.1:{each.port}{path}", proxy=None, **options)


@pytest.mark.parametrize(
    ("path", "options", "status", "named"),
    [
        ("/chat", {"subprotocols": OURS}, 404, "UNKNOWN_PATH"),
        (frames.GENERATE_PATH, {}, 400, "segue.v1.proto or segue.v1.json"),
        (frames.GENERATE_PATH, {"subprotocols": FOREIGN}, 400, "graphql-ws"),
        (
            frames.GENERATE_PATH,
            {"subprotocols": OURS, "origin": Origin("https://evil.example")},
            403,
            "evil",
        ),
    ],
    ids=["path", "no subprotocol", "subprotocol", "origin"],
)
def test_what_is_refused(path: str, options: dict[str, Any], status: int, named: str) -> None:
    async def main() -> None:
        async with rig("websocket") as each:
            with pytest.raises(InvalidStatus) as refused:
                await _connect(each, path, **options)
            assert refused.value.response.status_code == status
            assert named in refused.value.response.body.decode()

    run(main())


def test_a_listed_web_page_may_connect() -> None:
    async def main() -> None:
        async with rig("websocket") as each:
            allowed = Origin("https://chat.example")
            async with _connect(each, subprotocols=OURS, origin=allowed) as socket:
                assert socket.subprotocol == "segue.v1.json"

    run(main())


def test_plain_http() -> None:
    async def main() -> None:
        async with rig("websocket") as each:
            status, body = await _get(each, frames.MODEL_PATH)
            assert status == 200
            assert json.loads(body)["maxContextTokens"] == 512
            status, body = await _get(each, f"{frames.MODEL_PATH}?model=gpt-17")
            assert (status, json.loads(body)["reason"]) == (404, "UNKNOWN_MODEL")
            assert await _get(each, "/healthz") == (200, "serving\n")
            assert (await _get(each, frames.GENERATE_PATH))[0] == 426
            for member in each.cloud.membership.members:
                each.cloud.membership.remove(member)
            assert (await _get(each, "/healthz"))[0] == 503
            status, body = await _get(each, frames.MODEL_PATH)
            assert (status, json.loads(body)["reason"]) == (503, "NO_WORKER")

    run(main())


async def _get(each: Rig, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", each.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


# ---- other people's servers


@asynccontextmanager
async def _impostor(
    handler: Callable[[ServerConnection], Awaitable[None]],
    respond: Callable[[ServerConnection, Request], Response | None] | None = None,
) -> AsyncIterator[WebSocketTransport]:
    """A transport to a server that is not Segue's."""
    subprotocols = [Subprotocol("segue.v1.proto")]
    async with serve(
        handler, "127.0.0.1", 0, subprotocols=subprotocols, process_request=respond
    ) as server:
        port = server.sockets[0].getsockname()[1]
        yield WebSocketTransport(f"ws://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("frame", "code", "reason", "expected"),
    [
        (None, 4408, "TTFT_DEADLINE", ("RESOURCE_EXHAUSTED", "TTFT_DEADLINE")),
        (None, 1001, "going away", ("UNAVAILABLE", "CONNECTION_LOST")),
        (None, 1009, "too big", ("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE")),
        (b"\xff\xff", 1000, "", ("INTERNAL", "MALFORMED_FRAME")),
        (b"\0" * (MAX_MESSAGE_BYTES + 1), 1000, "", ("INTERNAL", "MESSAGE_TOO_LARGE")),
        ("text", 1000, "", ("INTERNAL", "MALFORMED_FRAME")),
    ],
    ids=["close code", "going away", "refused", "malformed", "oversized", "wrong kind"],
)
def test_a_cloud_that_misbehaves(
    frame: frames.Frame | None, code: int, reason: str, expected: tuple[str, str]
) -> None:
    async def handler(connection: ServerConnection) -> None:
        try:
            if frame is not None:
                await connection.send(frame)
        except ConnectionClosed:
            return
        await connection.close(code, reason)

    async def main() -> None:
        async with _impostor(handler) as transport:
            stream = await transport.open()
            for _ in range(2):
                with pytest.raises(SegueError) as raised:
                    await stream.receive()
                assert (raised.value.code, raised.value.reason) == expected
            await transport.aclose()
            await transport.aclose()

    run(main())


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (502, "bad gateway", Unavailable, "HTTP_502"),
        (404, "<html>", ProtocolError, "HTTP_404"),
        (200, "<html>", ProtocolError, "HTTP_200"),
        (307, "", ProtocolError, "HTTP_307"),
        (503, '{"code": "UNAVAILABLE", "reason": "NO_WORKER"}', Unavailable, "NO_WORKER"),
    ],
)
def test_a_server_that_opens_no_stream(
    status: int, body: str, kind: type[SegueError], reason: str
) -> None:
    followed: list[str] = []

    async def handler(connection: ServerConnection) -> None:
        await connection.close()

    def respond(connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/elsewhere":
            followed.append(request.path)
            return None
        response = connection.respond(HTTPStatus(status), body)
        response.headers["Location"] = "/elsewhere"
        return response

    async def main() -> None:
        async with _impostor(handler, respond) as transport:
            with pytest.raises(kind) as refused:
                await transport.open()
            assert refused.value.reason == reason
            with pytest.raises(SegueError):
                await transport.get_model(public.GetModelRequest())

    run(main())
    assert not followed


# ---- addresses


def test_a_transport_for_every_form_of_address() -> None:
    async def main() -> None:
        for address, kind in [
            ("127.0.0.1:8710", GrpcTransport),
            ("grpc://localhost:8710", GrpcTransport),
            ("ws://localhost:8711", WebSocketTransport),
            ("ws://[::1]:8711/behind/a/proxy/", WebSocketTransport),
            ("wss://cloud.example", WebSocketTransport),
        ]:
            transport = transport_for(address)
            assert isinstance(transport, kind)
            await transport.aclose()
        await transport_for("ws://cloud.example:80", insecure=True).aclose()
        for address in (
            *("", "localhost", "http://localhost:80", "ws://", "ws://localhost:99999"),
            *("ws://cloud.example:80", "ws://a..b", "ws://localhost:1/?q=1", "grpc://"),
        ):
            with pytest.raises(InvalidRequest, match=r"address|loopback"):
                transport_for(address)

    run(main())


def test_plain_text_takes_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")

    async def main() -> None:
        async with rig("websocket") as each:
            assert await each.transport().get_model(public.GetModelRequest())

    run(main())


def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *subject, *files], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)

    async def main() -> None:
        async with rig("websocket") as each, Proxy(each.port, tls=tls) as proxy:
            with pytest.raises(Unauthenticated, match=r"(?i)certificate"):
                await WebSocketTransport(f"wss://localhost:{proxy.port}").open()
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            transport = WebSocketTransport(f"wss://localhost:{proxy.port}")
            stream = await transport.open()
            await stream.send(each.start())
            assert len(ids_of(await read_until(stream, "finish"))) == 40
            await transport.aclose()

    run(main())
