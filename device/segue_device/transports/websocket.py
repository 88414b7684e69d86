"""The cloud over WebSocket: where gRPC cannot go, with the same behaviour.

Every answer opens a connection of its own, so its first message leaves two
round trips later than over a warm gRPC channel (three or four with TLS).
"""

from __future__ import annotations

import contextlib
from urllib.parse import urlencode, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State
from websockets.typing import Subprotocol

from segue_device.credentials import Credentials
from segue_device.transports.base import CloudStream
from segue_device.transports.handshakes import explain
from segue_protocol import frames
from segue_protocol.errors import InvalidRequest, ProtocolError, SegueError, Unavailable
from segue_protocol.frames import Form
from segue_protocol.hosts import is_loopback
from segue_protocol.streams import MAX_MESSAGE_BYTES, TOO_LARGE
from segue_protocol.wire import public

OPEN_TIMEOUT_S = 10.0
PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 10.0
# How long `aclose` waits for the cloud's farewell; a dead network must not hold an answer's end.
CLOSE_TIMEOUT_S = 0.5

# Besides its own error the library may raise this one when a connection ends under a
# large message: asyncio's `abort` breaks on a transport that has just closed by itself
# (CPython up to 3.13 at least, also agronholm/anyio#1250).
ENDED = (ConnectionClosed, AttributeError)


class WebSocketTransport:
    """Connections to `url`, ``ws://host:port`` or ``wss://host:port``.

    A path in the URL is put before Segue's own, for a gateway behind a proxy.
    `json` writes text instead of binary frames, for a look at the wire.
    ``ws://`` is plain text and speaks with loopback only; `insecure` allows it
    anywhere and is meant for a network that encrypts by itself. Raises
    InvalidRequest on another URL.
    """

    def __init__(
        self,
        url: str,
        *,
        json: bool = False,
        insecure: bool = False,
        credentials: Credentials | None = None,
    ) -> None:
        host, is_plain = _parse(url)
        shown = credentials or Credentials()
        if is_plain and shown.asks_for_tls:
            raise InvalidRequest(f"{url!r} is plain text, but credentials for TLS came; use wss://")
        if is_plain and not (insecure or is_loopback(host)):
            raise InvalidRequest(
                f"{url!r} is plain text to a host that is not loopback; use wss://, or say "
                "insecure=True on a network that encrypts by itself"
            )
        self._url = url.rstrip("/")
        self._form = Form.JSON if json else Form.PROTO
        self._tls = None if is_plain else shown.ssl_context()
        self._headers = {"Authorization": shown.authorization} if shown.authorization else {}
        self._streams: set[WebSocketStream] = set()

    async def open(self, *, anew: bool = False) -> CloudStream:
        """Always over a connection of its own."""
        try:
            connection = await self._connect(frames.GENERATE_PATH)
        except InvalidStatus as refused:
            raise _refusal(self._url, refused) from refused
        stream = WebSocketStream(connection, self._form)
        self._streams = {each for each in self._streams if not each.closed} | {stream}
        return stream

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        """A plain HTTP GET: a handshake that the cloud answers without an upgrade."""
        query = urlencode({"model": request.model})
        try:
            connection = await self._connect(f"{frames.MODEL_PATH}?{query}")
        except InvalidStatus as answer:
            if answer.response.status_code != 200:
                raise _refusal(self._url, answer) from answer
            return frames.from_json(_body(answer), public.GetModelResponse())
        await connection.close()
        raise ProtocolError(f"{self._url} upgraded {frames.MODEL_PATH}, expected a plain answer")

    async def aclose(self) -> None:
        streams, self._streams = self._streams, set()
        for stream in streams:
            await stream.aclose()

    async def _connect(self, path: str) -> ClientConnection:
        try:
            return await _Connect(
                self._url + path,
                subprotocols=[Subprotocol(self._form.value)],
                compression=None,  # frames of a few tokens do not shrink, but cost memory
                # A proxy of the environment would carry loopback and plain text elsewhere.
                proxy=None if self._tls is None else True,
                ssl=self._tls,
                additional_headers=self._headers,
                open_timeout=OPEN_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                ping_timeout=PING_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=MAX_MESSAGE_BYTES,
            )
        except InvalidStatus:
            raise
        except (WebSocketException, OSError) as error:
            why = str(error) or f"the end of the connection ({type(error).__name__})"
            lost = Unavailable(f"no cloud answers at {self._url}: {why}")
            raise explain(lost, tls=self._tls is not None) from error


class WebSocketStream:
    """The client's end of one `Generate` stream."""

    def __init__(self, connection: ClientConnection, form: Form) -> None:
        self._connection = connection
        self._form = form
        self._error: SegueError | None = None

    @property
    def closed(self) -> bool:
        return self._connection.state is State.CLOSED

    async def send(self, message: public.GenerateRequest) -> None:
        frame = frames.encode_request(message, self._form)
        try:
            await self._connection.send(frame)
        except ENDED as error:
            ended = Unavailable("the stream has ended", reason="STREAM_ENDED")
            closed = self._connection.protocol.close_exc
            raise self._error or _meaning(closed) or ended from error

    async def receive(self) -> public.GenerateResponse | None:
        if self._error is not None:
            raise self._error
        try:
            return frames.decode_response(await self._connection.recv(), self._form)
        except SegueError as error:
            self._error = error
            raise
        except ConnectionClosed as closed:
            self._error = _meaning(closed)
            if self._error is not None:
                raise self._error from closed
            return None

    async def aclose(self) -> None:
        with contextlib.suppress(*ENDED):
            await self._connection.close()


class _Connect(connect):
    """Follows no redirect: it could lead to plain text, or to another cloud."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _parse(url: str) -> tuple[str, bool]:
    """Host, and whether the URL is plain text."""
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or ""), parts.port
        host.encode("idna")
    except ValueError as error:
        raise InvalidRequest(f"cloud address {url!r}: {error}") from error
    if parts.scheme not in ("ws", "wss") or not host or parts.query or parts.fragment:
        raise InvalidRequest(f"cloud address {url!r}, expected ws://host:port or wss://host:port")
    return host, parts.scheme == "ws"


def _meaning(closed: ConnectionClosed) -> SegueError | None:
    """Why a connection ended; None after an orderly end by the cloud."""
    sent, received = closed.sent, closed.rcvd
    if sent is None or closed.rcvd_then_sent:
        if received is None:
            return frames.from_close(None, "")
        return frames.from_close(received.code, received.reason)
    if sent.code == frames.NORMAL_CLOSURE:
        return Unavailable("the stream was closed", reason="CLOSED")
    if sent.code in (frames.PROTOCOL_VIOLATION, frames.INVALID_TEXT, frames.TOO_BIG):
        return ProtocolError(
            f"the cloud sent what it may not: {sent.reason}",
            reason=TOO_LARGE if sent.code == frames.TOO_BIG else frames.MALFORMED,
        )
    return frames.from_close(None, sent.reason)


def _refusal(url: str, answer: InvalidStatus) -> SegueError:
    """The error of a handshake that ended with an HTTP status instead of an upgrade."""
    status, body = answer.response.status_code, _body(answer)
    error = frames.error_from_json(body)
    if error is not None:
        return error
    message = f"{url} answered HTTP {status}, expected a Segue gateway: {body[:200].strip()}"
    kind = Unavailable if status == 429 or status >= 500 else ProtocolError
    return kind(message, reason=f"HTTP_{status}")


def _body(answer: InvalidStatus) -> str:
    return bytes(answer.response.body).decode(errors="replace")
