"""Slots and pages: every one is free or owned exactly once, whatever is asked of the pools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.ledger import PageLedger, PageTable
from segue_cloud.kv.pages import PagePool
from segue_protocol.errors import InternalError, InvalidRequest, OutOfRange, Unsupported

LAYOUT = KvLayout(num_layers=2, num_kv_heads=3, head_dim=4, dtype="float32")


@pytest.fixture
def slots():
    pool = SlotPool(LAYOUT, slots=2, max_tokens=10)
    yield pool
    pool.check_integrity()
    pool.close()


# ---- slots


def test_a_slot_is_one_run_of_bytes_described_by_its_ticket(slots) -> None:
    slots.acquire(10)
    slot = slots.acquire(7)
    slot.cells[:] = np.arange(slot.cells.size).reshape(slot.cells.shape)
    assert slot.cells.shape == (2, 2, 7, 3, 4)
    assert slot.cells.flags.c_contiguous
    ticket = slot.ticket()
    assert (ticket.token_count, ticket.slot, ticket.generation) == (7, slot.index, 0)
    assert KvLayout.from_wire(ticket.layout) == LAYOUT
    for layer, span in enumerate(ticket.layers):
        run = slots._memory.data[span.offset_bytes : span.offset_bytes + span.length_bytes]
        assert (run.view(np.float32) == slot.cells[layer].reshape(-1)).all()
    assert (ticket.digest_kind, len(ticket.digest)) == ("sampled", 16)
    assert slot.ticket("off").digest == b""


def test_slots_do_not_overlap(slots) -> None:
    first, second = slots.acquire(10), slots.acquire(10)
    first.cells[:], second.cells[:] = 1, 2
    assert (first.cells == 1).all()
    assert (second.cells == 2).all()


def test_a_full_pool_answers_at_once_and_a_released_slot_is_used_again(slots) -> None:
    first, second = slots.acquire(1), slots.acquire(10)
    assert slots.acquire(1) is None
    assert slots.used == 2
    slots.release(first)
    again = slots.acquire(3)
    assert (again.index, again.generation) == (first.index, first.generation + 1)
    for slot in (again, second):
        slots.release(slot)
    assert slots.used == 0


def test_a_released_slot_cannot_be_used(slots) -> None:
    slot = slots.acquire(1)
    slots.release(slot)
    for use in (lambda: slots.release(slot), lambda: slot.cells, slot.ticket):
        with pytest.raises(InternalError, match="not held"):
            use()


def test_sizes_out_of_range(slots) -> None:
    with pytest.raises(OutOfRange, match="11 tokens do not fit a prefill slot of 10"):
        slots.acquire(11)
    with pytest.raises(InvalidRequest):
        slots.acquire(0)
    with pytest.raises(InvalidRequest):
        SlotPool(LAYOUT, slots=0, max_tokens=10)
    with pytest.raises(Unsupported, match="'float8'"):
        SlotPool(KvLayout(1, 1, 1, "float8"), slots=1, max_tokens=1)


def test_integrity_sees_a_changed_generation() -> None:
    pool = SlotPool(LAYOUT, slots=1, max_tokens=1)
    pool._memory.generations[0] = 5
    with pytest.raises(InternalError, match="generations"):
        pool.check_integrity()
    pool.close()


# ---- pages

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["reserve", "extend", "free"]), st.integers(1, 40), st.integers(0)),
    max_size=40,
)


@given(pages=st.integers(1, 12), page_tokens=st.integers(1, 7), operations=OPERATIONS)
def test_pages_are_free_or_owned_once_after_any_history(pages, page_tokens, operations) -> None:
    ledger = PageLedger(pages, page_tokens)
    held: list[tuple[PageTable, int]] = []
    for operation, tokens, which in operations:
        free = ledger.free_pages
        needed = -(-tokens // page_tokens)
        if operation == "reserve" and needed > pages:
            with pytest.raises(OutOfRange):
                ledger.reserve(tokens)
        elif operation == "reserve":
            table = ledger.reserve(tokens)
            assert (table is not None) == (needed <= free)
            if table is not None:
                held.append((table, tokens))
        elif held:
            table, capacity = held.pop(which % len(held))
            if operation == "free":
                ledger.free(table)
            else:
                missing = needed - len(table.pages)
                grown = table.extend(tokens)
                assert grown == (missing <= free)
                assert ledger.free_pages == free - (max(missing, 0) if grown else 0)
                held.append((table, max(tokens, capacity) if grown else capacity))
        ledger.check_integrity()
        cells = [table.cells(tokens) for table, tokens in held]
        every = np.concatenate([np.empty(0, np.int64), *cells])
        assert len(np.unique(every)) == len(every)
        assert ((every >= 0) & (every < pages * page_tokens)).all()
    for table, _ in held:
        ledger.free(table)
    assert (ledger.used, ledger.free_pages) == (0, pages)
    ledger.check_integrity()


def test_cell_numbers_follow_the_pages() -> None:
    ledger = PageLedger(pages=5, page_tokens=3)
    table = ledger.reserve(7)
    assert table.pages == [0, 2, 4]
    assert table.cells(7).tolist() == [0, 1, 2, 6, 7, 8, 12]
    assert table.extend(9)
    assert table.pages == [0, 2, 4]
    with pytest.raises(ValueError, match="read-only"):
        table.cells(1)[0] = 9
    with pytest.raises(InternalError, match="10 cells were asked of a reservation of 9"):
        table.cells(10)


def test_a_pool_that_fits_exactly_serves_requests_in_turn() -> None:
    pool = PagePool(LAYOUT, pages=6, page_tokens=2)
    first, second = pool.reserve(5), pool.reserve(6)
    assert pool.free_pages == 0
    assert pool.reserve(1) is None
    assert not first.extend(7)
    # They lie in one another's way, and still write only their own.
    for value, table in ((1, first), (2, second)):
        assert (np.diff(table.pages) != 1).any()
        pool.cells[:, :, table.cells(5)] = value
    assert (pool.cells[:, :, first.cells(5)] == 1).all()
    assert (pool.cells[:, :, second.cells(5)] == 2).all()
    pool.free(first)
    assert second.extend(12)
    pool.check_integrity()
    pool.free(second)
    assert pool.used == 0
    pool.close()


def test_freed_and_foreign_tables_are_refused() -> None:
    ledger, other = PageLedger(2, 1), PageLedger(2, 1)
    table = ledger.reserve(1)
    with pytest.raises(InternalError, match="another pool"):
        other.free(table)
    ledger.free(table)
    for use in (lambda: ledger.free(table), lambda: table.extend(1), lambda: table.cells(1)):
        with pytest.raises(InternalError):
            use()


def test_pool_sizes_out_of_range() -> None:
    with pytest.raises(InvalidRequest):
        PageLedger(0, 1)
    with pytest.raises(OutOfRange, match="the whole pool has 2"):
        PageLedger(2, 4).reserve(9)
    with pytest.raises(InvalidRequest):
        PageLedger(2, 4).reserve(0)


def test_integrity_sees_a_page_owned_twice() -> None:
    ledger = PageLedger(4, 1)
    first, second = ledger.reserve(1), ledger.reserve(1)
    second.hold(first.pages, 1)
    with pytest.raises(InternalError, match="each once"):
        ledger.check_integrity()
