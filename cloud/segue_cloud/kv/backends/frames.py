"""What goes over a connection of backend ``tcp``: fixed frames, little-endian, bounded.

Both sides prove that they know the cluster's token, by an HMAC over the other's
fresh random bytes, before anything else is read. Then, as often as the receiver
likes: a request, an answer with the number of layers that follow, those layers,
and a verdict: whether the slot was still in the same use when the last byte had
been read.
"""

from __future__ import annotations

import hmac
import socket
import struct
from collections.abc import Callable

NONCE_BYTES = 32
PROOF_BYTES = 32
HELLO = b"SEGUEKV1"
# incarnation, slot, generation, the first layer wanted
REQUEST = struct.Struct("<16sIQI")
# a place in REASONS, how many layers follow
ANSWER = struct.Struct("<BI")
# layer, bytes that follow
LAYER = struct.Struct("<IQ")
# a place in REASONS
VERDICT = struct.Struct("<B")
REASONS = ("", "KV_STALE", "KV_REPLAYED", "KV_INCARNATION")

_SENDER, _RECEIVER = b"segue-kv sender", b"segue-kv receiver"


def sender_proof(token: bytes, nonces: bytes) -> bytes:
    """What a sender shows; `nonces`: its own, then the receiver's."""
    return hmac.digest(token, _SENDER + nonces, "sha256")


def receiver_proof(token: bytes, nonces: bytes) -> bytes:
    """What a receiver shows; `nonces` as in :func:`sender_proof`."""
    return hmac.digest(token, _RECEIVER + nonces, "sha256")


def receive_into(
    connection: socket.socket, target: memoryview, left_s: Callable[[], float]
) -> None:
    """Fill `target`. Raises EOFError when the peer ends first, TimeoutError after `left_s`."""
    while target:
        connection.settimeout(left_s())
        received = connection.recv_into(target)
        if not received:
            raise EOFError("the connection ended in the middle of a message")
        target = target[received:]


def receive(connection: socket.socket, size: int, left_s: Callable[[], float]) -> bytes:
    """Exactly `size` bytes; raises as :func:`receive_into`."""
    received = bytearray(size)
    receive_into(connection, memoryview(received), left_s)
    return bytes(received)
