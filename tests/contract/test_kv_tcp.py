"""What only TCP has to do: who is let in, a stream that breaks off, certificates."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kv_sender import LAYOUT, SECURITY, RemoteSender, random_cells
from segue_cloud.kv.backends.tcp import TcpReader, TcpSecurity
from segue_cloud.kv.backends.tcp_sender import TcpSender
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.kv.transfer import KvPuller
from segue_cloud.security.tls import WORKER_SETTINGS, Tls
from segue_protocol.errors import InvalidRequest, TransferError
from segue_protocol.wire import private
from tests.certificates import Authority

TOKENS = 33
DEADLINE_S = 5.0


def _pull(ticket: private.KvTicket, security: TcpSecurity = SECURITY) -> np.ndarray:
    """The cells that arrived."""
    cells = np.zeros(LAYOUT.shape(TOKENS), LAYOUT.storage_dtype)
    puller = KvPuller(TcpReader(security), deadline_s=DEADLINE_S)
    try:
        puller.pull(ticket, LAYOUT, cells, np.arange(TOKENS), digest="full")
    finally:
        puller.close()
    return cells


def _refused(ticket: private.KvTicket, security: TcpSecurity = SECURITY) -> str:
    with pytest.raises(TransferError) as raised:
        _pull(ticket, security)
    reason: str = raised.value.reason
    return reason


@pytest.fixture(scope="module")
def sender() -> Iterator[RemoteSender]:
    with RemoteSender("tcp") as made:
        yield made


def test_only_who_knows_the_token_is_served(sender: RemoteSender) -> None:
    ticket = sender.ticket(TOKENS, 1)
    assert _refused(ticket, TcpSecurity("another token than the cluster's")) == "KV_PEER_DENIED"
    assert (_pull(ticket) == random_cells(LAYOUT, TOKENS, 1)).all()


def test_a_ticket_is_served_once_whoever_asks(sender: RemoteSender) -> None:
    ticket = sender.ticket(TOKENS, 2)
    _pull(ticket)
    assert _refused(ticket) == "KV_REPLAYED"


@contextmanager
def _relay(address: str, pass_on: Callable[[int], int]) -> Iterator[str]:
    """A relay to `address` that passes `pass_on(n)` of the sender's first n bytes, then breaks."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, _, port = address.rpartition(":")

    def serve() -> None:
        near, _ = listener.accept()
        with near, socket.create_connection((host, int(port))) as far:
            upwards = threading.Thread(target=forward, args=(near, far))
            upwards.start()
            passed = 0
            while piece := far.recv(4096):
                whole = len(piece)
                near.sendall(piece[: max(0, pass_on(passed + whole) - passed)])
                passed += whole
                if pass_on(passed) < passed:
                    break
            near.shutdown(socket.SHUT_RDWR)
            far.shutdown(socket.SHUT_RDWR)
            upwards.join()

    def forward(near: socket.socket, far: socket.socket) -> None:
        while piece := near.recv(4096):
            far.sendall(piece)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        serving.join()
        listener.close()


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_truncated_stream_is_refused(sender: RemoteSender, share: float) -> None:
    ticket = sender.ticket(TOKENS, 3)
    end = int(TOKENS * LAYOUT.bytes_per_token * share)
    with _relay(ticket.tcp.address, lambda passed: min(passed, end)) as address:
        ticket.tcp.address = address
        assert _refused(ticket) == "KV_PEER_GONE"


def test_something_else_at_the_address_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(64))

        answering = threading.Thread(target=answer)
        answering.start()
        port = listener.getsockname()[1]
        ticket = private.KvTicket(layout=LAYOUT.to_wire(), token_count=TOKENS)
        layer_bytes = 2 * TOKENS * LAYOUT.row_bytes
        for layer in range(LAYOUT.num_layers):
            ticket.layers.add(offset_bytes=layer * layer_bytes, length_bytes=layer_bytes)
        ticket.digest_kind = "full"
        ticket.tcp.address = f"127.0.0.1:{port}"
        assert _refused(ticket) == "KV_PEER_DENIED"
        answering.join()


def _tls(authority: Authority, name: str) -> TcpSecurity:
    pair = authority.issue(name, "127.0.0.1")
    files = (str(pair.certificate), str(pair.key), str(authority.file))
    return TcpSecurity("", Tls.load(*files, WORKER_SETTINGS))


def test_with_certificates_the_stream_is_encrypted_and_strangers_are_refused(
    tmp_path: Path,
) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    security = _tls(ours, "prefill")
    pool = SlotPool(LAYOUT, 1, TOKENS, sender=lambda memory: TcpSender(memory, security))
    slot = pool.acquire(TOKENS)
    assert slot is not None
    slot.cells[:] = random_cells(LAYOUT, TOKENS, 4)
    ticket = slot.ticket()
    assert _refused(ticket, _tls(theirs, "stranger")) == "KV_PEER_DENIED"
    assert _refused(ticket, SECURITY) in ("KV_PEER_DENIED", "KV_DEADLINE", "KV_PEER_GONE")
    assert (_pull(ticket, _tls(ours, "decode")) == slot.cells).all()
    pool.close()


@pytest.mark.parametrize(
    ("security", "options", "message"),
    [
        (SECURITY, {"host": "0.0.0.0"}, "not loopback"),
        (TcpSecurity(""), {}, "needs a cluster token"),
    ],
)
def test_nobody_listens_where_strangers_could_read(security, options, message) -> None:
    with pytest.raises(InvalidRequest, match=message):
        SlotPool(LAYOUT, 1, 8, sender=lambda memory: TcpSender(memory, security, **options))
