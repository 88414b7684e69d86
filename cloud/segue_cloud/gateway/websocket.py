"""The gateway's WebSocket face: `Generate` for devices that have no gRPC.

A connection carries one stream. Losing it, or its close by the device, is not
a cancel: the generation lives on under its lease, as with gRPC.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, NegotiationError
from websockets.protocol import State
from websockets.typing import Origin, Subprotocol

from segue_cloud.gateway.gateway import Gateway
from segue_cloud.gateway.http import PlainAnswers, authorization_of, quiet_logger
from segue_cloud.security.tls import Tls
from segue_cloud.security.tokens import TenantTokens
from segue_cloud.watch.trace_parent import HEADER, TRACE_PARENT
from segue_protocol import frames
from segue_protocol.errors import SegueError, Unavailable
from segue_protocol.frames import Form
from segue_protocol.streams import MAX_MESSAGE_BYTES
from segue_protocol.wire import public

# How long a connection may take to become one, and how many may be at it together.
OPEN_TIMEOUT_S = 10.0
MAX_HANDSHAKES = 256
PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
# Frames of one connection that wait to be read; after them TCP holds the device back.
MAX_QUEUED_FRAMES = 8


class WebSocketServer:
    """One listener. `origins` are the web pages that may connect; apps send no Origin."""

    def __init__(
        self,
        gateway: Gateway,
        tokens: TenantTokens,
        *,
        origins: Sequence[str] = (),
        tls: Tls | None = None,
    ) -> None:
        self._gateway = gateway
        self._tokens = tokens
        self._tls = tls
        # Without this any page in the user's browser could use a gateway on loopback.
        self._origins: list[Origin | None] = [None, *(Origin(each) for each in origins)]
        self._server: Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes a free one. Returns the port.

        Raises Unavailable naming the address when it cannot be had.
        """
        try:
            self._server = await serve(
                self._serve,
                host,
                port,
                origins=self._origins,
                subprotocols=[Subprotocol(form.value) for form in Form],
                select_subprotocol=_select,
                process_request=PlainAnswers(self._gateway, self._tokens),
                create_connection=_Connection,
                ssl=self._tls.server_context() if self._tls is not None else None,
                open_timeout=OPEN_TIMEOUT_S,
                ssl_handshake_timeout=OPEN_TIMEOUT_S if self._tls is not None else None,
                compression=None,  # frames of a few tokens do not shrink, but cost memory
                ping_interval=PING_INTERVAL_S,
                ping_timeout=PING_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=MAX_QUEUED_FRAMES,
                logger=quiet_logger(__name__),
            )
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {host}:{port}: {error}; is another server running there?",
                reason="ADDRESS_IN_USE",
            ) from error
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self, grace_s: float) -> None:
        """Refuse new connections, let streams say their last for `grace_s`, drop the rest."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close(close_connections=False)
        closed = asyncio.ensure_future(server.wait_closed())
        await asyncio.wait([closed], timeout=grace_s)
        for connection in server.handlers:
            if connection.state is not State.CLOSED:
                connection.transport.abort()
        await closed

    async def _serve(self, connection: ServerConnection) -> None:
        form = Form(connection.subprotocol)
        if connection.request is not None:
            TRACE_PARENT.set(next(iter(connection.request.headers.get_all(HEADER)), ""))
        requests = _requests(connection, form)
        try:
            # Not in the handshake: a browser is not told why that was refused.
            tenant = self._tokens.tenant_of(authorization_of(connection.request))
            async with aclosing(self._gateway.generate(requests, tenant=tenant)) as responses:
                async for response in responses:
                    await connection.send(frames.encode_response(response, form))
        except SegueError as error:
            await _fail(connection, form, error)
        except ConnectionClosed:
            return  # the generator's end has detached the session


class _Connection(ServerConnection):
    """Dropped at once when too many others have not yet said what they want."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        opening = sum(each.state is State.CONNECTING for each in self.server.handlers)
        if opening > MAX_HANDSHAKES:
            self.transport.abort()


async def _requests(
    connection: ServerConnection, form: Form
) -> AsyncIterator[public.GenerateRequest]:
    """The device's messages. Raises Unavailable at the connection's end, however it ends.

    The error ends the reader; without it an idle stream would notice only at
    its next heartbeat that nobody listens.
    """
    try:
        while True:
            yield frames.decode_request(await connection.recv(), form)
    except ConnectionClosed as closed:
        raise Unavailable("the device has gone", reason="DISCONNECTED") from closed


async def _fail(connection: ServerConnection, form: Form, error: SegueError) -> None:
    try:
        await connection.send(frames.encode_error(error, form))
    except ConnectionClosed:
        return
    await connection.close(frames.close_code(error), frames.close_reason(error))


def _select(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol:
    for form in Form:
        if form.value in offered:
            return Subprotocol(form.value)
    known = " or ".join(form.value for form in Form)
    raise NegotiationError(f"unknown subprotocol {', '.join(offered) or '(none)'}; offer {known}")
