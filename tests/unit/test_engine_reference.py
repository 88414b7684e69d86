"""The reference engine answers from the cells and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_cloud.engine.base import Chunk
from segue_cloud.engine.reference import ReferenceEngine
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.transfer import KvPuller
from segue_protocol.errors import ContextTooLong, InvalidRequest
from segue_protocol.reference import reference_logits

IDS = list(b"It goes on without a pause.")


@given(cuts=st.lists(st.integers(1, len(IDS) - 1), unique=True).map(sorted))
def test_any_chunks_in_any_cells_give_the_logits_of_the_whole(cuts) -> None:
    engine = ReferenceEngine()
    pool = PagePool(engine.layout, pages=20, page_tokens=2)
    table = pool.reserve(len(IDS))
    for start, end in zip([0, *cuts], [*cuts, len(IDS)], strict=True):
        chunk = Chunk(IDS[start:end], range(start, end), table.cells(end))
        logits = engine.forward(pool.cells, [chunk])[0]
    assert (logits == reference_logits(IDS, range(len(IDS)))).all()
    pool.close()


def test_the_kv_has_to_arrive() -> None:
    engine, puller = ReferenceEngine(), KvPuller()
    slots = SlotPool(engine.layout, slots=1, max_tokens=64)
    pool = PagePool(engine.layout, pages=16, page_tokens=4)
    n = len(IDS)
    slot, table = slots.acquire(n), pool.reserve(n + 1)
    engine.forward(slot.cells, [Chunk(IDS, range(n), slice(0, n))])
    decode = Chunk([65], [n], table.cells(n + 1))
    expected = reference_logits([*IDS, 65], range(n + 1))
    assert (engine.forward(pool.cells, [decode])[0] != expected).any()
    puller.pull(slot.ticket(), engine.layout, pool.cells, table.cells(n))
    assert (engine.forward(pool.cells, [decode])[0] == expected).all()
    for plane in (0, 1):
        for cell in table.cells(n):
            pool.cells[0, plane, cell] += 1
            assert (engine.forward(pool.cells, [decode])[0] != expected).any()
            pool.cells[0, plane, cell] -= 1
    puller.close()
    slots.close()
    pool.close()


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    engine = ReferenceEngine()
    cells = np.zeros(engine.layout.shape(20), np.int64)
    rows = engine.forward(
        cells,
        [Chunk(IDS[:7], range(7), slice(0, 7)), Chunk([9, 8], [0, 30], np.array([11, 19]))],
    )
    assert (rows[0] == reference_logits(IDS[:7], range(7))).all()
    assert (rows[1] == reference_logits([9, 8], [0, 30])).all()


def test_the_contract_is_checked_as_in_every_engine() -> None:
    engine = ReferenceEngine(max_context_tokens=8)
    cells = np.zeros(engine.layout.shape(4), np.int64)
    with pytest.raises(InvalidRequest, match="token id 320"):
        engine.forward(cells, [Chunk([320], [0], slice(0, 1))])
    with pytest.raises(ContextTooLong):
        engine.forward(cells, [Chunk([1], [8], slice(0, 1))])
