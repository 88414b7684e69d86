"""Every device engine keeps the contract of segue_device.engines.base."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from segue_device.engines import (
    Cancel,
    ReferenceDeviceEngine,
)
from segue_protocol.errors import (
    Cancelled,
    ContextTooLong,
    InvalidRequest,
    SegueError,
)
from segue_protocol.reference import reference_logits
from tests.contract.engine_cases import (
    CHUNK,
    COMPACT,
    CONTEXT,
    GAPPED,
    IDS,
    CancelAt,
    CancelBehind,
    Make,
    after,
    assert_same,
)


@pytest.mark.parametrize("positions", [COMPACT, GAPPED], ids=["compact", "gapped"])
def test_one_append_equals_many(make: Make, positions: list[int]) -> None:
    expected = after(make(chunk_tokens=CONTEXT), (IDS, positions))
    for cuts in ([0, 96], [0, 1, 2, 40, 96], [0, 25, 90, 95, 96]):
        engine = make()
        parts = [(IDS[a:b], positions[a:b]) for a, b in pairwise(cuts)]
        assert_same(engine, after(engine, *parts), expected)
        assert list(engine.cells) == list(zip(positions, IDS, strict=True))


def test_rewind_and_append_again(make: Make) -> None:
    expected = after(make(), (IDS[:50], COMPACT[:50]))
    engine = make()
    after(engine, (IDS[:30], COMPACT[:30]), (IDS[60:90], COMPACT[60:90]))
    assert engine.rewind(30)
    assert len(engine.cells) == 30
    assert_same(engine, after(engine, (IDS[30:50], COMPACT[30:50])), expected)
    assert engine.rewind(0)
    assert list(engine.cells) == []
    assert_same(engine, after(engine, (IDS[:50], COMPACT[:50])), expected)


def test_rewind_to_a_gap_and_append_behind_another(make: Make) -> None:
    engine = make()
    after(engine, (IDS, GAPPED))
    for kept, onwards in ((49, 150), (49, 60), (20, 31), (20, 21), (20, 400), (10, 12)):
        positions = [*GAPPED[:kept], *range(onwards, onwards + 20)]
        expected = after(make(), (IDS[: kept + 20], positions))
        assert engine.rewind(kept)
        got = after(engine, (IDS[kept : kept + 20], positions[kept:]))
        assert_same(engine, got, expected)
        assert [position for position, _ in engine.cells] == positions


def test_logits_only_behind_an_append(make: Make) -> None:
    engine = make()
    with pytest.raises(InvalidRequest, match="no logits"):
        engine.logits()
    after(engine, (IDS[:3], COMPACT[:3])).fill(0)
    assert engine.logits().any(), "logits are the caller's own copy"
    engine.rewind(3)
    with pytest.raises(InvalidRequest, match="no logits"):
        engine.logits()


def test_too_many_cells_are_refused_before_any_work(make: Make) -> None:
    engine = make(max_context_tokens=20)
    before = after(engine, (IDS[:20], COMPACT[:20]))
    with pytest.raises(ContextTooLong, match="21 cells"):
        engine.append(IDS[20:21], COMPACT[20:21], cancel=Cancel())
    assert len(engine.cells) == 20
    assert np.array_equal(engine.logits(), before)


@pytest.mark.parametrize(
    ("ids", "positions", "words"),
    [
        ([], [], "at least one id"),
        ([5, 6], [10], "2 token ids and 1 positions"),
        ([5, -1], [10, 11], "token id -1"),
        ([5, 1 << 20], [10, 11], "token id 1048576"),
        ([5, 6], [10, 10], "position 10 follows 10"),
        ([5, 6], [9, 10], "position 9 follows 9"),
    ],
)
def test_bad_input_changes_nothing(
    make: Make, ids: list[int], positions: list[int], words: str
) -> None:
    engine = make()
    before = after(engine, (IDS[:10], COMPACT[:10]))
    with pytest.raises(InvalidRequest, match=words):
        engine.append(ids, positions, cancel=Cancel())
    for cells in (-1, 11):
        with pytest.raises(InvalidRequest, match="expected 0 to 10"):
            engine.rewind(cells)
    assert len(engine.cells) == 10
    assert np.array_equal(engine.logits(), before)


def test_cancelled_before(make: Make) -> None:
    engine, cancel = make(), Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        engine.append(IDS, COMPACT, cancel=cancel)
    assert list(engine.cells) == []
    after(engine, (IDS[:5], COMPACT[:5]))


def test_cancelled_between_chunks(make: Make) -> None:
    expected = after(make(), (IDS, COMPACT))
    engine = make()
    with pytest.raises(Cancelled):
        engine.append(IDS, COMPACT, cancel=CancelAt(3))
    finished = len(engine.cells)
    assert 0 < finished < CONTEXT
    assert finished % CHUNK == 0
    assert list(engine.cells) == list(zip(COMPACT, IDS, strict=True))[:finished]
    with pytest.raises(InvalidRequest, match="no logits"):
        engine.logits()
    assert_same(engine, after(engine, (IDS[finished:], COMPACT[finished:])), expected)


NATIVE = pytest.mark.parametrize("make", ["onnx", "onnx-built", "llama-cpp"], indirect=True)


@NATIVE
def test_cancelled_inside_a_chunk(make: Make) -> None:
    expected = after(make(), (IDS, COMPACT))
    engine = make(chunk_tokens=CONTEXT)
    after(engine, (IDS[:20], COMPACT[:20]))
    with pytest.raises(Cancelled):
        engine.append(IDS[20:], COMPACT[20:], cancel=CancelBehind())
    assert list(engine.cells) == list(zip(COMPACT, IDS, strict=True))[:20]
    assert_same(engine, after(engine, (IDS[20:], COMPACT[20:])), expected)


@NATIVE
def test_cancelled_by_another_thread(make: Make) -> None:
    class ToldWhenHeard(Cancel):
        heard = threading.Event()

        def add_listener(self, listener: Callable[[], None]) -> None:
            super().add_listener(listener)
            self.heard.set()

    length = 2000
    engine = make(chunk_tokens=length, max_context_tokens=length)
    cancel, ended = ToldWhenHeard(), []

    def run() -> None:
        try:
            engine.append([5] * length, list(range(length)), cancel=cancel)
        except SegueError as error:
            ended.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    cancel.heard.wait()
    cancel.set()
    thread.join()
    assert ended == [Cancelled]
    assert list(engine.cells) == []
    assert_same(engine, after(engine, (IDS, COMPACT)), after(make(), (IDS, COMPACT)))


def test_close_twice_and_use_after(make: Make) -> None:
    engine = make()
    after(engine, (IDS[:5], COMPACT[:5]))
    engine.close()
    engine.close()
    uses: list[Callable[[], object]] = [
        lambda: engine.append(IDS[:1], [50], cancel=Cancel()),
        engine.logits,
        lambda: engine.rewind(0),
    ]
    for use in uses:
        with pytest.raises(InvalidRequest) as refused:
            use()
        assert refused.value.reason == "ENGINE_CLOSED"


def test_reference_is_the_protocols_function() -> None:
    engine = ReferenceDeviceEngine(chunk_tokens=7)
    assert np.array_equal(after(engine, (IDS, GAPPED)), reference_logits(IDS, GAPPED))
    assert engine.append_calls == 1
