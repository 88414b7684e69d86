"""KV in place: prefill writes into the pages that decode has reserved, and nothing is moved.

Both sides share one page pool. A place names the pages of one reservation
there; the prefill side pins it while it writes, so that pages whose request was
given up meanwhile are not in other hands before the last write has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from segue_cloud.engine.base import CellIndex
from segue_cloud.kv.contiguous import require_slot_size
from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.ledger import PageTable
from segue_protocol.errors import InternalError, InvalidRequest, TransferError
from segue_protocol.wire import private


class SharedPool(Protocol):
    """What both sides need of the pool."""

    @property
    def layout(self) -> KvLayout: ...

    @property
    def incarnation(self) -> bytes: ...

    @property
    def cells(self) -> Cells: ...

    def pin_reservation(self, reservation: int, pages: Sequence[int]) -> PageTable | None:
        """The table of a reservation of these pages, pinned; None if it is none, or was freed."""
        ...


def place_of(pool: SharedPool, table: PageTable) -> private.KvPlace:
    """What tells a prefill side where to write."""
    return private.KvPlace(pool=pool.incarnation, reservation=table.reservation, pages=table.pages)


def require_place(ticket: private.KvTicket, pool: SharedPool, table: PageTable) -> None:
    """Raise TransferError unless what the ticket promises lies in these very pages."""
    pool.layout.require_equal(KvLayout.from_wire(ticket.layout))
    if ticket.place != place_of(pool, table):
        raise _bad_place("the ticket is for another place than the reservation's")


class PlacedSlot:
    """One prefill into reserved pages; they stay pinned until the slot is released."""

    def __init__(self, pool: SharedPool, table: PageTable, tokens: int) -> None:
        self.table = table
        self.tokens = tokens
        self._pool = pool

    @property
    def cells(self) -> Cells:
        """The whole pool's, writable, [layers, 2, cells, kv_heads, head_dim]."""
        return self._pool.cells

    def where(self, tokens: int) -> CellIndex:
        """In which of `cells` the first `tokens` tokens lie."""
        return self.table.cells(tokens)

    def ticket(self, digest: DigestKind = "sampled") -> private.KvTicket:
        """That it lies there. Without a digest: nothing travels that could change."""
        return private.KvTicket(
            layout=self._pool.layout.to_wire(),
            token_count=self.tokens,
            place=place_of(self._pool, self.table),
        )


class PlacedSlots:
    """At most ``slots`` prefills at a time, of up to ``max_tokens`` tokens, into shared pages.

    Used from one thread.
    """

    def __init__(self, pool: SharedPool, slots: int, max_tokens: int) -> None:
        self.slots = slots
        self.max_tokens = max_tokens
        self._pool = pool
        self._held: set[PlacedSlot] = set()

    @property
    def used(self) -> int:
        """Slots held now."""
        return len(self._held)

    def acquire(self, tokens: int, place: private.KvPlace | None = None) -> PlacedSlot | None:
        """Pin a place for `tokens` tokens; None when every slot is taken.

        Raises OutOfRange and InvalidRequest for a number of tokens that no slot
        takes, InvalidRequest without a place, TransferError (KV_TICKET) for one
        that is not, or no longer, a reservation in this pool with that room.
        """
        require_slot_size(tokens, self.max_tokens)
        if place is None:
            raise InvalidRequest("this worker writes into a shared pool; send the job with a place")
        if self.used == self.slots:
            return None
        if place.pool != self._pool.incarnation:
            raise _bad_place("it is in another pool")
        table = self._pool.pin_reservation(place.reservation, place.pages)
        if table is None:
            raise _bad_place("that is not, or not any more, what is reserved there")
        if tokens > table.capacity_tokens:
            table.unpin()
            raise _bad_place(f"{table.capacity_tokens} cells are reserved for {tokens} tokens")
        slot = PlacedSlot(self._pool, table, tokens)
        self._held.add(slot)
        return slot

    def release(self, slot: PlacedSlot) -> None:
        """Unpin. Raises InternalError for a slot that is not held."""
        if slot not in self._held:
            raise InternalError("this slot is not held: it was released before")
        self._held.remove(slot)
        slot.table.unpin()

    def check_integrity(self) -> None:
        """The pool's owner checks the pages; a slot more than there are is ours to find."""
        if self.used > self.slots:
            raise InternalError(f"{self.used} of {self.slots} prefill slots are held")


def _bad_place(what: str) -> TransferError:
    return TransferError(f"the KV has no usable place: {what}; start over", reason="KV_TICKET")
