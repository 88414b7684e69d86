"""A socket for the application."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import anyio
import uvicorn

from segue_device.client import AsyncClient
from segue_device.server.app import build_app
from segue_protocol.errors import InvalidRequest, Unavailable
from segue_protocol.hosts import is_loopback

# Answers are ended first; this is for what they still have to send.
CLOSE_TIMEOUT_S = 3
WILDCARDS = ("", "0.0.0.0", "::")


async def serve(
    client: AsyncClient,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    insecure: bool = False,
    hosts: Sequence[str] = (),
    on_listening: Callable[[int], None] = lambda port: None,
    **options: Any,
) -> None:
    """Serve an open client until this is cancelled; running answers are ended then.

    `on_listening` is told the port, which port 0 leaves to the system. `insecure`
    allows a `host` that others can reach: keys and texts then travel in plain
    text. The other options are those of :func:`build_app`. Signals are left to
    the caller. Raises InvalidRequest or Unavailable when it cannot listen.
    """
    if not is_loopback(host) and not insecure:
        raise InvalidRequest(
            f"{host!r} can be reached from elsewhere, in plain text; listen on 127.0.0.1, or "
            "allow it with insecure=True",
            reason="INSECURE",
        )
    own_hosts = () if host in WILDCARDS else (host,)
    app = build_app(client, hosts=(*hosts, *own_hosts), **options)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
    )
    server = _Server(config)
    with closing(_listen(host, port)) as listener:
        on_listening(listener.getsockname()[1])
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await asyncio.wait({serving})
        finally:
            app.state.turns.close()
            server.should_exit = True
            with anyio.CancelScope(shield=True):
                await asyncio.wait({serving})
    serving.result()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: they belong to the app that this runs in."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error}; is another server running there?",
            reason="ADDRESS_IN_USE",
        ) from error
