"""How the KV of a slot gets to another process: the two ends of a transfer backend.

The sender's end publishes where a ticket's bytes are to be had; everything a
receiver needs travels in the ticket, so that one message sets a transfer up.
The receiver's end reads the layers, one after the other, and checks before the
first and after the last that the slot is still in the use the ticket was made
for. It yields them in pieces that are still in the processor's cache when they are
scattered; one may be overwritten by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Protocol, get_args

from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.layout import Cells, KvLayout
from segue_protocol.errors import InvalidRequest, TransferError
from segue_protocol.wire import private

TransferName = Literal["shm", "tcp", "nixl"]
# Of a piece where it is copied on its way: small enough for the cache, large enough
# for what a read costs (benchmarks/kv_transfer.py).
PIECE_BYTES = 2 << 20
# Pieces begin with whole pages of any usual size.
_PIECE_TOKENS = 256
TRANSFERS: tuple[TransferName, ...] = get_args(TransferName)


class Deadline:
    """The time one transfer may take, on an injected clock."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._end_s = clock() + seconds

    def left_s(self) -> float:
        """Seconds left. Raises TransferError (KV_DEADLINE) when there are none."""
        left_s = self._end_s - self._clock()
        if left_s <= 0:
            raise TransferError(
                f"the sender did not deliver within the transfer's {self._seconds:g} s: it is "
                "frozen or overloaded; prefill again",
                reason="KV_DEADLINE",
            )
        return left_s


class Sender(Protocol):
    """Publishes the slots of one memory file. Called from the thread of its slot pool."""

    # The least digest that a ticket of this backend must carry.
    least_digest: DigestKind

    def offer(self, ticket: private.KvTicket) -> None:
        """Let the ticket's bytes be read from now on, and add to it how."""
        ...

    def withdraw(self, slot: int) -> None:
        """Before the slot gets another use. Idempotent."""
        ...

    def close(self) -> None:
        """Serve nobody any more; the memory may be unmapped after it. Idempotent."""
        ...


class Reader(Protocol):
    """Reads slots of other processes. Used from one thread."""

    @property
    def name(self) -> str:
        """What moves the bytes, as far as it can be told."""
        ...

    @property
    def attachments(self) -> int:
        """Senders whose memory or connection is held now."""
        ...

    @property
    def quarantined_bytes(self) -> int:
        """Buffers into which an unfinished read may still write."""
        ...

    def read(
        self, ticket: private.KvTicket, layout: KvLayout, first: int, deadline: Deadline
    ) -> Iterator[Cells]:
        """Layers from `first` on, in pieces [n, kv_heads, head_dim] of n tokens in a row.

        Layer by layer, keys before values, tokens in order; a piece has only one
        of them. All layers, or those that are done if the ticket is `early`. Valid
        when the iterator has ended without an error. Raises TransferError.
        """
        ...

    def forget(self, ticket: private.KvTicket) -> None:
        """Give up what is held of the ticket's sender; the next read begins anew."""
        ...

    def close(self) -> None:
        """Give up everything. Idempotent."""
        ...


def piece_tokens(layout: KvLayout) -> int:
    """The tokens of a piece of PIECE_BYTES at most, of one row of pages at least."""
    return max(1, PIECE_BYTES // (layout.row_bytes * _PIECE_TOKENS)) * _PIECE_TOKENS


def require_transfer(name: str) -> TransferName:
    """The backend of this name. Raises InvalidRequest."""
    for known in TRANSFERS:
        if known == name:
            return known
    raise InvalidRequest(f"transfer is {name!r}, expected one of {', '.join(TRANSFERS)}")


def require_use(found: int, ticket: private.KvTicket) -> None:
    """Raise TransferError (KV_STALE) unless `found` is the slot's use the ticket is for."""
    if found != ticket.generation:
        raise TransferError(
            f"slot {ticket.slot} of process {ticket.pid} is in use {found}, the ticket is for "
            f"use {ticket.generation}: it was released; prefill again",
            reason="KV_STALE",
        )


def bad_ticket(what: str) -> TransferError:
    """A ticket that no sender can have meant."""
    return TransferError(f"the KV ticket is not usable: {what}; prefill again", reason="KV_TICKET")


def peer_gone(ticket: private.KvTicket, why: object) -> TransferError:
    """The sender cannot be reached any more."""
    return TransferError(
        f"process {ticket.pid} does not send its KV any more ({why}); prefill again",
        reason="KV_PEER_GONE",
    )


def incompatible(ticket: private.KvTicket, backend: TransferName) -> TransferError:
    """The sender moves KV in another way."""
    return TransferError(
        f"the ticket of process {ticket.pid} is for {ticket.WhichOneof('source') or 'shm'}, this "
        f"worker pulls by {backend}; configure `transfer` alike on both",
        reason="KV_BACKEND",
    )
