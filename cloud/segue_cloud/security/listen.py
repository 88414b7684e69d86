"""Where a server may listen, and how."""

from __future__ import annotations

import grpc.aio

from segue_cloud.security.tls import Tls
from segue_protocol.errors import InvalidRequest, Unavailable
from segue_protocol.hosts import is_loopback, with_port


def require_exposable(host: str, tls: Tls | None, insecure: bool, settings: str) -> None:
    """Raise InvalidRequest on plain text that other hosts could reach, unless it was asked for."""
    if tls is None and not insecure and not is_loopback(host):
        raise InvalidRequest(
            f"host {host!r} is not loopback and this server speaks plain text; give it a "
            f"certificate ({settings}), listen on 127.0.0.1 behind a TLS proxy, or say --insecure"
        )


def bind(server: grpc.aio.Server, host: str, port: int, tls: Tls | None) -> int:
    """Add a port, 0 for a free one; returns it. Raises Unavailable naming the address."""
    address = with_port(host, port)
    try:
        if tls is not None:
            return server.add_secure_port(address, tls.server_credentials())
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {address}: {error}; is another server running there?",
            reason="ADDRESS_IN_USE",
        ) from error
