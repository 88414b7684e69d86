"""Backend ``tcp``, the receiver's end: between hosts, with nothing but sockets."""

from __future__ import annotations

import hmac
import secrets
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.backends import frames
from segue_cloud.kv.backends.base import Deadline, bad_ticket, incompatible, peer_gone, piece_tokens
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.security.tls import Tls
from segue_protocol.errors import TransferError
from segue_protocol.hosts import host_of
from segue_protocol.wire import private

_Source = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class TcpSecurity:
    """What both ends of a connection prove: `token`, or certificates of one authority.

    `tls_name`: what the certificates are called that do not name their host.
    """

    token: str = field(repr=False)
    tls: Tls | None = None
    tls_name: str = ""


class TcpReader:
    """Asks senders for layers; keeps one connection to each."""

    name = "tcp"
    quarantined_bytes = 0

    def __init__(self, security: TcpSecurity) -> None:
        self._security = security
        self._connections: dict[_Source, socket.socket] = {}
        self._staging: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    @property
    def attachments(self) -> int:
        return len(self._connections)

    def read(
        self, ticket: private.KvTicket, layout: KvLayout, first: int, deadline: Deadline
    ) -> Iterator[Cells]:
        if ticket.WhichOneof("source") != "tcp":
            raise incompatible(ticket, "tcp")
        try:
            yield from self._read(ticket, layout, first, deadline)
        except TimeoutError as error:
            deadline.left_s()  # says so
            raise peer_gone(ticket, error) from error
        except (OSError, EOFError) as error:
            raise peer_gone(ticket, error) from error

    def forget(self, ticket: private.KvTicket) -> None:
        connection = self._connections.pop(_source(ticket), None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _read(
        self, ticket: private.KvTicket, layout: KvLayout, first: int, deadline: Deadline
    ) -> Iterator[Cells]:
        connection = self._connection(ticket, deadline)
        connection.settimeout(deadline.left_s())
        connection.sendall(
            frames.REQUEST.pack(ticket.incarnation, ticket.slot, ticket.generation, first)
        )
        code, layers = frames.ANSWER.unpack(
            frames.receive(connection, frames.ANSWER.size, deadline.left_s)
        )
        _require_good(code, ticket)
        if first + layers > layout.num_layers or not (ticket.early or first + layers):
            raise bad_ticket(f"the sender announced {layers} layers after {first}")
        layer_bytes = ticket.layers[0].length_bytes
        plane_bytes = layer_bytes // 2
        step_bytes = min(plane_bytes, piece_tokens(layout) * layout.row_bytes)
        if len(self._staging) < step_bytes:
            self._staging = np.empty(step_bytes, np.uint8)
        shape = layout.shape(-1)[2:]
        for layer in range(first, first + layers):
            header = frames.receive(connection, frames.LAYER.size, deadline.left_s)
            if frames.LAYER.unpack(header) != (layer, layer_bytes):
                raise bad_ticket(f"layer {layer} of {layer_bytes} bytes did not come")
            for start in 2 * [*range(0, plane_bytes, step_bytes)]:  # keys, then values
                piece = self._staging[: min(step_bytes, plane_bytes - start)]
                frames.receive_into(connection, piece.data, deadline.left_s)
                yield piece.view(layout.storage_dtype).reshape(shape)
        (code,) = frames.VERDICT.unpack(
            frames.receive(connection, frames.VERDICT.size, deadline.left_s)
        )
        _require_good(code, ticket)

    def _connection(self, ticket: private.KvTicket, deadline: Deadline) -> socket.socket:
        source = _source(ticket)
        if source not in self._connections:
            if len(self._connections) >= 64:  # senders come and go
                self._connections.pop(next(iter(self._connections))).close()
            self._connections[source] = self._connect(ticket, deadline)
        return self._connections[source]

    def _connect(self, ticket: private.KvTicket, deadline: Deadline) -> socket.socket:
        host, port = host_of(ticket.tcp.address), ticket.tcp.address.rpartition(":")[2]
        if not host or not port.isdecimal():
            raise bad_ticket(f"its address is {ticket.tcp.address!r}")
        connection = socket.create_connection((host, int(port)), deadline.left_s())
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._security.tls is not None:
                context = self._security.tls.client_context()
                name = self._security.tls_name or host
                connection = context.wrap_socket(connection, server_hostname=name)
            self._prove(connection, ticket, deadline)
        except ssl.SSLError as error:
            connection.close()
            raise _denied(ticket, str(error)) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _prove(
        self, connection: socket.socket, ticket: private.KvTicket, deadline: Deadline
    ) -> None:
        token = self._security.token.encode()
        hello = frames.receive(connection, len(frames.HELLO) + frames.NONCE_BYTES, deadline.left_s)
        if not hello.startswith(frames.HELLO):
            raise _denied(ticket, "something else answers at its address")
        nonces = hello[len(frames.HELLO) :] + secrets.token_bytes(frames.NONCE_BYTES)
        connection.settimeout(deadline.left_s())
        connection.sendall(nonces[frames.NONCE_BYTES :] + frames.receiver_proof(token, nonces))
        try:
            shown = frames.receive(connection, frames.PROOF_BYTES, deadline.left_s)
        except EOFError:
            raise _denied(ticket, "it has another cluster token") from None
        if not hmac.compare_digest(shown, frames.sender_proof(token, nonces)):
            raise _denied(ticket, "it does not know this cluster's token")


def _source(ticket: private.KvTicket) -> _Source:
    return ticket.tcp.address, ticket.incarnation


def _require_good(code: int, ticket: private.KvTicket) -> None:
    reason = frames.REASONS[code] if code < len(frames.REASONS) else "KV_TICKET"
    if reason:
        raise TransferError(
            f"process {ticket.pid} refuses use {ticket.generation} of slot {ticket.slot} "
            f"({reason}); prefill again",
            reason=reason,
        )


def _denied(ticket: private.KvTicket, why: str) -> TransferError:
    return TransferError(
        f"process {ticket.pid} at {ticket.tcp.address} is no peer: {why}; give both workers the "
        "same cluster_token_file or worker_tls_* files",
        reason="KV_PEER_DENIED",
    )
