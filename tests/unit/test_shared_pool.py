"""Two seats at one page pool: what one process reserves, the other writes into."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.place import PlacedSlots, place_of
from segue_cloud.kv.shared_pool import SharedPagePool, create_pool_memory
from segue_protocol.errors import InternalError, InvalidRequest, OutOfRange, TransferError

LAYOUT = KvLayout(num_layers=2, num_kv_heads=1, head_dim=3, dtype="float32")
PAGES, PAGE_TOKENS = 6, 2


@pytest.fixture
def seats() -> Iterator[tuple[SharedPagePool, SharedPagePool]]:
    memory = create_pool_memory(LAYOUT, PAGES, PAGE_TOKENS)
    both = [SharedPagePool(memory, LAYOUT, PAGES, PAGE_TOKENS) for _ in range(2)]
    yield both[0], both[1]
    for each in both:
        each.check_integrity()
        assert each.used == 0
    for each in both:
        each.close()


def test_prefill_writes_what_decode_reads(seats: tuple[SharedPagePool, SharedPagePool]) -> None:
    decode, prefill = seats
    table = decode.reserve(5)
    assert table is not None
    slots = PlacedSlots(prefill, slots=1, max_tokens=8)
    slot = slots.acquire(4, place_of(decode, table))
    assert slot is not None
    slot.cells[:, :, slot.where(4)] = 7
    assert (decode.cells[:, :, table.cells(4)] == 7).all()
    assert (decode.cells == 7).sum() == 4 * LAYOUT.bytes_per_token // 4
    assert slot.ticket().place == place_of(decode, table)
    pages = list(table.pages)
    decode.free(table)
    assert decode.used == len(pages), "prefill still writes"
    assert decode.reserve(2 * PAGE_TOKENS * PAGES // 3) is None
    slots.release(slot)


def test_a_place_that_was_given_up_is_refused(seats: tuple[SharedPagePool, SharedPagePool]) -> None:
    decode, prefill = seats
    slots = PlacedSlots(prefill, slots=2, max_tokens=8)
    table = decode.reserve(4)
    assert table is not None
    place = place_of(decode, table)
    decode.free(table)
    again = decode.reserve(4)
    assert again is not None
    assert list(place.pages) == again.pages, "the same pages in another reservation"
    with pytest.raises(TransferError) as refused:
        slots.acquire(4, place)
    assert refused.value.reason == "KV_TICKET"
    decode.free(again)


def test_both_reserve_and_none_gets_what_the_other_has(
    seats: tuple[SharedPagePool, SharedPagePool],
) -> None:
    first, second = (seat.reserve(3 * PAGE_TOKENS) for seat in seats)
    assert first is not None
    assert second is not None
    assert sorted([*first.pages, *second.pages]) == list(range(PAGES))
    assert first.reservation != second.reservation
    assert not first.extend(4 * PAGE_TOKENS)
    seats[1].free(second)
    assert first.extend(4 * PAGE_TOKENS)
    seats[0].free(first)


def test_a_pin_of_ones_own_puts_freeing_off(seats: tuple[SharedPagePool, SharedPagePool]) -> None:
    table = seats[0].reserve(1)
    assert table is not None
    table.pin()
    seats[0].free(table)
    assert seats[1].used == 1
    table.unpin()


def test_closing_gives_everything_up() -> None:
    memory = create_pool_memory(LAYOUT, PAGES, PAGE_TOKENS)
    leaving, staying = (SharedPagePool(memory, LAYOUT, PAGES, PAGE_TOKENS) for _ in range(2))
    table = leaving.reserve(3)
    assert table is not None
    leaving.close()
    leaving.free(table)  # as a request does that ends only now
    assert staying.used == 0
    staying.close()


def test_sizes_that_differ_are_refused() -> None:
    memory = create_pool_memory(LAYOUT, PAGES, PAGE_TOKENS)
    with pytest.raises(InternalError, match="one configuration"):
        SharedPagePool(memory, LAYOUT, PAGES + 1, PAGE_TOKENS)
    with pytest.raises(InvalidRequest):
        create_pool_memory(LAYOUT, 0, PAGE_TOKENS)
    pool = SharedPagePool(memory, LAYOUT, PAGES, PAGE_TOKENS)
    with pytest.raises(OutOfRange):
        pool.reserve(PAGES * PAGE_TOKENS + 1)
    pool.close()
