"""Prefill into reserved pages: pinned while written, and only where something is reserved."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.ledger import PageLedger
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.place import PlacedSlots, place_of, require_place
from segue_protocol.errors import InternalError, InvalidRequest, OutOfRange, TransferError
from segue_protocol.wire import private

LAYOUT = KvLayout(num_layers=2, num_kv_heads=1, head_dim=2, dtype="float32")


@pytest.fixture
def pool() -> Iterator[PagePool]:
    pool = PagePool(LAYOUT, pages=8, page_tokens=2)
    yield pool
    assert pool.used == 0
    pool.check_integrity()
    pool.close()


def test_pinned_pages_are_not_given_away_before_the_last_pin_is_taken_back() -> None:
    ledger = PageLedger(pages=4, page_tokens=1)
    table = ledger.reserve(3)
    assert table is not None
    table.pin()
    pages = list(table.pages)
    assert ledger.pin_reservation(table.reservation, pages) is table
    ledger.free(table)
    assert ledger.pin_reservation(table.reservation, pages) is None, "it was given up"
    assert (ledger.used, ledger.reserve(2)) == (3, None)
    table.unpin()
    assert ledger.used == 3
    assert table.pages == pages, "the writer still knows where"
    ledger.check_integrity()
    table.unpin()
    assert ledger.used == 0
    ledger.check_integrity()
    with pytest.raises(InternalError, match="no pin"):
        table.unpin()
    for use in (table.pin, lambda: ledger.free(table), lambda: table.extend(1)):
        with pytest.raises(InternalError, match="freed before"):
            use()


def test_a_slot_writes_the_cells_of_its_reservation(pool: PagePool) -> None:
    slots = PlacedSlots(pool, slots=1, max_tokens=8)
    table = pool.reserve(5)
    assert table is not None
    slot = slots.acquire(3, place_of(pool, table))
    assert slot is not None
    slot.cells[:, :, slot.where(3)] = 7
    assert (pool.cells[:, :, table.cells(3)] == 7).all()
    assert (pool.cells == 7).sum() == 3 * LAYOUT.bytes_per_token // 4
    ticket = slot.ticket()
    assert (ticket.token_count, len(ticket.layers), ticket.digest) == (3, 0, b"")
    require_place(ticket, pool, table)
    assert slots.used == 1
    assert slots.acquire(3, place_of(pool, table)) is None
    slots.release(slot)
    with pytest.raises(InternalError, match="released before"):
        slots.release(slot)
    pool.free(table)


def test_a_place_that_is_no_reservation_is_refused(pool: PagePool) -> None:
    slots = PlacedSlots(pool, slots=4, max_tokens=8)
    table, given_up = pool.reserve(4), pool.reserve(2)
    assert table is not None
    assert given_up is not None
    place, gone = place_of(pool, table), place_of(pool, given_up)
    pool.free(given_up)
    other_pool = private.KvPlace(pool=bytes(16), reservation=1, pages=place.pages)
    other_pages = private.KvPlace(pool=place.pool, reservation=1, pages=[1, 3])
    for wrong, tokens in ((gone, 2), (other_pool, 2), (other_pages, 2), (place, 5)):
        with pytest.raises(TransferError) as refused:
            slots.acquire(tokens, wrong)
        assert refused.value.reason == "KV_TICKET"
    with pytest.raises(InvalidRequest, match="with a place"):
        slots.acquire(2)
    with pytest.raises(OutOfRange, match="9 tokens do not fit a prefill slot of 8"):
        slots.acquire(9, place)
    assert slots.used == 0
    pool.free(table)  # at once: a refusal leaves no pin


def test_a_ticket_for_another_place_or_layout_is_refused(pool: PagePool) -> None:
    mine, other = pool.reserve(2), pool.reserve(2)
    assert mine is not None
    assert other is not None
    layout = LAYOUT.to_wire()
    for place in (place_of(pool, other), None):
        with pytest.raises(TransferError) as refused:
            require_place(private.KvTicket(layout=layout, place=place), pool, mine)
        assert refused.value.reason == "KV_TICKET"
    layout.num_layers = 3
    with pytest.raises(TransferError, match="num_layers"):
        require_place(private.KvTicket(layout=layout, place=place_of(pool, mine)), pool, mine)
    pool.free(mine)
    pool.free(other)
