"""Backend ``tcp``, the sender's end: a listener, and a thread for every receiver."""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import threading
from dataclasses import dataclass

from segue_cloud.kv.backends import frames
from segue_cloud.kv.backends.tcp import TcpSecurity
from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.memory import MemoryFile
from segue_cloud.security.listen import require_exposable
from segue_protocol.errors import InvalidRequest, Unavailable
from segue_protocol.hosts import with_port
from segue_protocol.wire import private

# Of a connection's beginning, and of one message after which nothing more is taken.
STEP_S = 10.0
MAX_RECEIVERS = 256


@dataclass(slots=True)
class _Offer:
    ticket: private.KvTicket
    # What was sent already is not sent again.
    next_layer: int = 0


class TcpSender:
    """Serves the slots of one memory file; every layer of a ticket once."""

    least_digest: DigestKind = "full"

    def __init__(
        self,
        memory: MemoryFile,
        security: TcpSecurity,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        advertised_host: str = "",
        insecure: bool = False,
    ) -> None:
        """Listen; a port 0 takes a free one.

        Raises InvalidRequest where plain text could be reached from elsewhere
        or nothing would keep strangers out, Unavailable on a taken address.
        """
        require_exposable(host, security.tls, insecure, "worker_tls_*")
        if security.tls is None and not security.token:
            raise InvalidRequest("transfer tcp needs a cluster token or worker_tls_* files")
        self._memory = memory
        self._token = security.token.encode()
        self._context = security.tls.server_context() if security.tls else None
        self._lock = threading.Lock()
        self._offers: dict[int, _Offer] = {}
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._closed = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host.strip("[]"), port), family=family)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {with_port(host, port)} for KV transfers: {error}",
                reason="ADDRESS_IN_USE",
            ) from error
        bound = self._listener.getsockname()[1]
        self.address = with_port(advertised_host or host, bound)
        self._accepting = threading.Thread(target=self._accept, name="segue-kv-tcp", daemon=True)
        self._accepting.start()

    def offer(self, ticket: private.KvTicket) -> None:
        ticket.tcp.address = self.address
        with self._lock:
            known = self._offers.get(ticket.slot)
            if known is None:
                self._offers[ticket.slot] = _Offer(ticket)
            elif known.ticket.early and not ticket.early:
                # Nobody may have followed the early one.
                self._offers[ticket.slot] = _Offer(ticket, known.next_layer)

    def withdraw(self, slot: int) -> None:
        with self._lock:
            self._offers.pop(slot, None)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            connections = dict(self._connections)
        # Wakes the thread that accepts; closing alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *connections.values()):
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="segue-kv-tcp", daemon=True
            )
            with self._lock:
                if self._closed or len(self._connections) >= MAX_RECEIVERS:
                    connection.close()
                    continue
                self._connections[connection] = thread
            thread.start()

    def _serve(self, accepted: socket.socket) -> None:
        connection = accepted
        try:
            connection.settimeout(STEP_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            if not self._proven(connection):
                return
            while True:
                connection.settimeout(None)
                first = connection.recv(1)
                if not first:
                    return
                rest = frames.receive(connection, frames.REQUEST.size - 1, lambda: STEP_S)
                connection.settimeout(STEP_S)
                self._answer(connection, *frames.REQUEST.unpack(first + rest))
        except (OSError, EOFError):
            pass  # the receiver's end of it raises, and prefills again
        finally:
            with self._lock:
                self._connections.pop(accepted, None)
            connection.close()

    def _proven(self, connection: socket.socket) -> bool:
        mine = secrets.token_bytes(frames.NONCE_BYTES)
        connection.sendall(frames.HELLO + mine)
        theirs = frames.receive(connection, frames.NONCE_BYTES, lambda: STEP_S)
        shown = frames.receive(connection, frames.PROOF_BYTES, lambda: STEP_S)
        nonces = mine + theirs
        if not hmac.compare_digest(shown, frames.receiver_proof(self._token, nonces)):
            return False
        connection.sendall(frames.sender_proof(self._token, nonces))
        return True

    def _answer(
        self, connection: socket.socket, incarnation: bytes, slot: int, generation: int, first: int
    ) -> None:
        reason, layers = self._claim(incarnation, slot, generation, first)
        connection.sendall(frames.ANSWER.pack(frames.REASONS.index(reason), len(layers)))
        if reason:
            return
        # Views, so that a file closed meanwhile stays mapped.
        data, generations = self._memory.data, self._memory.generations
        for layer, span in enumerate(layers, first):
            connection.sendall(frames.LAYER.pack(layer, span.length_bytes))
            end = span.offset_bytes + span.length_bytes
            connection.sendall(data[span.offset_bytes : end].data)
        verdict = "" if int(generations[slot]) == generation else "KV_STALE"
        connection.sendall(frames.VERDICT.pack(frames.REASONS.index(verdict)))

    def _claim(
        self, incarnation: bytes, slot: int, generation: int, first: int
    ) -> tuple[str, list[private.LayerSpan]]:
        """Why not, or the layers to send, which nobody else gets."""
        with self._lock:
            offer = self._offers.get(slot)
            if incarnation != self._memory.incarnation:
                return "KV_INCARNATION", []
            if offer is None or offer.ticket.generation != generation:
                return "KV_STALE", []
            if first != offer.next_layer:
                return "KV_REPLAYED", []
            spans = list(offer.ticket.layers)
            if offer.next_layer == len(spans):
                return "KV_REPLAYED", []
            stop = int(self._memory.layers_done[slot]) if offer.ticket.early else len(spans)
            offer.next_layer = max(first, stop)
            return "", spans[first:stop]
