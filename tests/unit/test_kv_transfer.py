"""Pulling KV from another process: what arrives is what was sent, or a reason says why not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.kv_sender import RemoteSender, random_cells
from segue_cloud.kv import transfer
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.kv.digest import SAMPLES, digest_cells, sample_rows
from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.scatter import Scatter
from segue_cloud.kv.transfer import KvPuller
from segue_protocol.errors import InternalError, InvalidRequest, TransferError
from segue_protocol.wire import private

LAYOUT = KvLayout(num_layers=3, num_kv_heads=2, head_dim=8, dtype="float32")
TOKENS = 21


class Receiver:
    """A page pool in which every other request sits in the way."""

    def __init__(self, layout: KvLayout = LAYOUT, pages: int = 16, page_tokens: int = 4) -> None:
        self.pool = PagePool(layout, pages, page_tokens)
        self.puller = KvPuller()

    def pull(self, ticket: private.KvTicket, **options) -> transfer.TransferResult:
        table = self.pool.reserve(TOKENS)
        self.numbers = table.cells(TOKENS)
        try:
            return self.puller.pull(
                ticket, self.pool.layout, self.pool.cells, self.numbers, **options
            )
        finally:
            self.pool.free(table)

    def refuse(self, ticket: private.KvTicket, **options) -> TransferError:
        with pytest.raises(TransferError) as raised:
            self.pull(ticket, **options)
        assert self.puller.reader.attachments == 0, "a failed attachment must not be kept"
        return raised.value


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.puller.close()
    made.pool.check_integrity()
    made.pool.close()


@pytest.fixture
def local():
    """A sender in this process: (pool, slot, ticket)."""
    pool = SlotPool(LAYOUT, slots=2, max_tokens=64)
    slot = pool.acquire(TOKENS)
    slot.cells[:] = random_cells(LAYOUT, TOKENS, 1)
    yield pool, slot, slot.ticket("full")
    pool.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
def test_cells_of_another_process_arrive_scattered_and_nothing_else_changes(dtype: str) -> None:
    layout = replace(LAYOUT, dtype=dtype)
    receiver = Receiver(layout)
    receiver.pool.cells[:] = 42
    untouched = np.ones(receiver.pool.cells.shape[2], bool)
    with RemoteSender("shm", layout) as sender:
        for seed in (1, 2):
            ticket = sender.ticket(TOKENS, seed)
            assert ticket.pid == sender.pid
            moved = receiver.pull(ticket, digest="full")
            assert moved.bytes == TOKENS * layout.bytes_per_token
            assert moved.seconds > 0
            assert (np.diff(receiver.numbers) != 1).any()
            arrived = receiver.pool.cells[:, :, receiver.numbers]
            assert (arrived == random_cells(layout, TOKENS, seed)).all()
            untouched[receiver.numbers] = False
        assert receiver.puller.reader.attachments == 1
    assert untouched.sum() == 64 - 2 * TOKENS
    assert (receiver.pool.cells[:, :, untouched] == 42).all()
    receiver.puller.close()
    receiver.puller.close()
    assert receiver.puller.reader.attachments == 0


def test_a_sender_that_was_killed_is_gone_also_when_attached(receiver) -> None:
    with RemoteSender("shm", LAYOUT) as sender:
        ticket = sender.ticket(TOKENS, 1)
        receiver.pull(ticket)
        sender.kill(reap=False)
        assert receiver.refuse(ticket).reason == "KV_PEER_GONE"
        assert receiver.refuse(ticket).reason == "KV_PEER_GONE"
    assert receiver.refuse(ticket).reason == "KV_PEER_GONE"


def test_memory_of_a_dead_sender_is_given_up_when_the_next_one_comes(receiver) -> None:
    with RemoteSender("shm", LAYOUT) as first, RemoteSender("shm", LAYOUT) as second:
        receiver.pull(first.ticket(TOKENS, 1))
        first.kill()
        receiver.pull(second.ticket(TOKENS, 2))
        assert receiver.puller.reader.attachments == 1


def test_a_released_slot_makes_its_ticket_stale(receiver) -> None:
    with RemoteSender("shm", LAYOUT) as sender:
        ticket = sender.ticket(TOKENS, 1)
        receiver.pull(ticket)
        sender.release(ticket.slot)
        assert receiver.refuse(ticket).reason == "KV_STALE"
        again = sender.ticket(TOKENS, 2)
        assert again.slot == ticket.slot
        assert receiver.refuse(ticket).reason == "KV_STALE"
        receiver.pull(again, digest="full")


def test_a_slot_released_during_the_copy_is_noticed(receiver, local, monkeypatch) -> None:
    pool, slot, ticket = local
    copy = Scatter.copy
    released = []

    def released_meanwhile(*args) -> None:
        copy(*args)
        if not released:
            released.append(pool.release(slot))

    monkeypatch.setattr(Scatter, "copy", released_meanwhile)
    assert receiver.refuse(ticket, digest="off").reason == "KV_STALE"


def test_another_incarnation_at_the_same_pid(receiver, local) -> None:
    ticket = local[2]
    ticket.incarnation = bytes(16)
    assert receiver.refuse(ticket).reason == "KV_INCARNATION"


@pytest.mark.parametrize(
    ("factor", "value"),
    [("num_layers", 4), ("num_kv_heads", 1), ("head_dim", 16), ("dtype", "bfloat16")],
)
def test_a_differing_layout_is_named(receiver, local, factor, value) -> None:
    ticket = local[2]
    setattr(ticket.layout, factor, value)
    error = receiver.refuse(ticket)
    assert error.reason == "KV_LAYOUT"
    assert f"differ in {factor}" in error.message


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda ticket: setattr(ticket, "token_count", 20), "covers 20 tokens, 21 were expected"),
        (lambda ticket: ticket.layers.pop(), "2 layers, not 3"),
        (lambda ticket: setattr(ticket.layers[1], "length_bytes", 8), "layer 1 has 8 bytes"),
        (lambda ticket: setattr(ticket.layers[1], "offset_bytes", 2), "inside a number"),
        (lambda ticket: setattr(ticket.layers[2], "offset_bytes", 1 << 40), "it ends at byte"),
        (lambda ticket: setattr(ticket, "slot", 7), "slot 7 does not exist"),
    ],
)
def test_a_ticket_that_contradicts_itself(receiver, local, damage, message) -> None:
    damage(local[2])
    error = receiver.refuse(local[2])
    assert error.reason == "KV_TICKET"
    assert message in error.message


@pytest.mark.parametrize("least", ["full", "sampled"])
def test_a_changed_byte_fails_the_full_digest(receiver, local, least) -> None:
    _, slot, ticket = local
    slot.cells.view(np.uint8)[1, 1, 13, 1, 5] ^= 1
    assert receiver.refuse(ticket, digest=least).reason == "KV_DIGEST"
    assert receiver.puller.failures == {"KV_DIGEST": 1}


def test_a_ticket_is_good_for_one_transfer(receiver, local) -> None:
    ticket = local[2]
    receiver.pull(ticket)
    assert receiver.refuse(ticket).reason == "KV_REPLAYED"
    assert receiver.puller.failures == {"KV_REPLAYED": 1}


def test_an_early_ticket_gives_the_layers_that_are_done(receiver, local) -> None:
    pool, slot, ticket = local
    puller, table = receiver.puller, receiver.pool.reserve(TOKENS)
    fetch = puller.begin(slot.early_ticket(), LAYOUT, receiver.pool.cells, table.cells(TOKENS))
    for done in range(LAYOUT.num_layers):
        assert not puller.advance(fetch)
        assert fetch.layers == done
        slot.layer_done(done + 1)
    assert puller.advance(fetch)
    puller.finish(fetch, ticket, "full")
    assert (receiver.pool.cells[:, :, table.cells(TOKENS)] == slot.cells).all()
    pool.release(slot)
    again = pool.acquire(TOKENS)
    with pytest.raises(TransferError, match="is not for what the early ticket announced"):
        puller.finish(fetch, again.ticket("full"), "full")
    receiver.pool.free(table)


def test_what_changed_behind_an_early_ticket_fails_the_digest(receiver, local) -> None:
    _, slot, ticket = local
    slot.layer_done(LAYOUT.num_layers)
    fetch = receiver.puller.begin(
        slot.early_ticket(), LAYOUT, receiver.pool.cells, np.arange(TOKENS)
    )
    assert receiver.puller.advance(fetch)
    receiver.pool.cells[2, 0, 20] += 1
    with pytest.raises(TransferError) as raised:
        receiver.puller.finish(fetch, ticket, "full")
    assert raised.value.reason == "KV_DIGEST"
    assert receiver.puller.failures == {"KV_DIGEST": 1}


@given(st.data())
def test_a_scatter_hits_its_cells_whatever_their_pattern(data) -> None:
    page = data.draw(st.sampled_from([1, 2, 3, 4, 8]))
    pages = data.draw(st.permutations(range(9)))[: data.draw(st.integers(1, 9))]
    tokens = data.draw(st.integers(1, len(pages) * page))
    if data.draw(st.booleans()):
        pages = sorted(pages)
    numbers = np.concatenate([np.arange(page) + page * number for number in pages])[:tokens]
    layer = random_cells(LAYOUT, tokens, tokens)[0]
    target = np.full(LAYOUT.shape(9 * page)[1:], 42, np.float32)
    scatter = Scatter(numbers, 9 * page)
    cuts = sorted({0, tokens, *data.draw(st.lists(st.integers(0, tokens), max_size=3))})
    for first, stop in pairwise(cuts):
        for plane in (0, 1):
            scatter.copy(layer[plane, first:stop], first, target[plane])
    assert (target[:, numbers] == layer).all()
    untouched = np.ones(9 * page, bool)
    untouched[numbers] = False
    assert (target[:, untouched] == 42).all()


@pytest.mark.parametrize("page", range(6))
def test_a_lost_page_fails_the_sampled_digest(receiver, local, monkeypatch, page: int) -> None:
    copy = Scatter.copy

    def without_a_page(scatter, source, first, target) -> None:
        copy(scatter, source, first, target)
        target[receiver.numbers[page * 4 : page * 4 + 4]] = 0

    monkeypatch.setattr(Scatter, "copy", without_a_page)
    assert receiver.refuse(local[1].ticket("sampled")).reason == "KV_DIGEST"


def test_a_weaker_digest_than_required_is_refused(receiver, local) -> None:
    error = receiver.refuse(local[1].ticket("sampled"), digest="full")
    assert error.reason == "KV_DIGEST"
    assert "configure sender and receiver alike" in error.message
    assert receiver.refuse(local[1].ticket("off")).reason == "KV_DIGEST"
    receiver.pull(local[1].ticket("full"), digest="sampled")


def test_wrong_arguments_are_not_the_tickets_fault(receiver, local) -> None:
    ticket, pool = local[2], receiver.pool
    numbers = np.arange(TOKENS)
    with pytest.raises(InvalidRequest, match="'half'"):
        receiver.puller.pull(ticket, LAYOUT, pool.cells, numbers, digest="half")
    for cells, where in (
        (pool.cells[:2], numbers),
        (pool.cells.view(np.uint32), numbers),
        (pool.cells, numbers + 60),
        (pool.cells, numbers - 1),
    ):
        with pytest.raises(InternalError):
            receiver.puller.pull(ticket, LAYOUT, cells, where)


@given(st.data())
def test_a_digest_does_not_depend_on_where_the_tokens_lie(data) -> None:
    tokens = data.draw(st.integers(1, 40))
    kind = data.draw(st.sampled_from(["sampled", "full"]))
    numbers = np.array(data.draw(st.permutations(range(50)))[:tokens])
    cells = random_cells(LAYOUT, tokens, tokens)
    scattered = np.zeros(LAYOUT.shape(50), np.float32)
    scattered[:, :, numbers] = cells
    expected = digest_cells(cells, None, LAYOUT, kind)
    assert digest_cells(scattered, numbers, LAYOUT, kind) == expected
    changed = replace(LAYOUT, head_dim=9)
    assert digest_cells(cells, None, changed, kind) != expected


@given(tokens=st.integers(1, 10_000), planes=st.integers(2, 64))
def test_sampled_rows_exist_and_spread_over_the_planes(tokens: int, planes: int) -> None:
    rows = sample_rows(tokens, planes)
    assert rows.shape == (planes, SAMPLES)
    assert rows.min() == 0
    assert rows.max() < tokens
    assert len(np.unique(rows)) == min(tokens, planes * SAMPLES)
