"""Where a cloud is, and which transport goes there."""

from __future__ import annotations

from segue_device.credentials import Credentials
from segue_device.transports.base import Transport
from segue_protocol.errors import InvalidRequest, Unsupported


def transport_for(
    address: str, *, insecure: bool = False, credentials: Credentials | None = None
) -> Transport:
    """A transport to ``host:port``, ``grpc://host:port``, ``ws://…`` or ``wss://…``.

    `insecure` allows plain text elsewhere than on loopback; `credentials` with files
    ask for TLS there too. Raises
    InvalidRequest on another form of address, Unsupported without the extra
    ``grpc`` where it is needed.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "grpc":
        try:
            from segue_device.transports.grpc import GrpcTransport
        except ImportError as error:
            raise Unsupported(
                f"{address!r} needs gRPC: install segue-device[grpc], or use a ws:// address"
            ) from error
        return GrpcTransport(
            rest if separator else address, insecure=insecure, credentials=credentials
        )
    if scheme in ("ws", "wss"):
        from segue_device.transports.websocket import WebSocketTransport

        return WebSocketTransport(address, insecure=insecure, credentials=credentials)
    raise InvalidRequest(
        f"cloud address {address!r}, expected host:port, grpc://host:port, ws:// or wss://"
    )
