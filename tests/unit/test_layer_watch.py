"""Looking on while an engine goes through the layers of a prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from segue_cloud.engine import paged_attention
from segue_cloud.engine.base import Chunk
from segue_cloud.engine.emulated import EmulatedEngine
from segue_cloud.engine.loading import load_engine
from segue_cloud.engine.reference import ReferenceEngine
from segue_cloud.profiles.base import CloudProfile, DecodeCost, PrefillCost
from segue_protocol.errors import Cancelled
from tests.unit.engine_models import FAMILIES, VOCAB_SIZE, write_model

LENGTH, WINDOW = 40, 6


class Watch:
    """Asks for the queries of every layer and copies the cells as they are then."""

    def __init__(self, cells: np.ndarray, rows: int = WINDOW, stop_at: int | None = None) -> None:
        self.cells, self.rows, self.stop_at = cells, rows, stop_at
        self.seen: list[tuple[int, np.ndarray | None, np.ndarray]] = []

    def wants_queries(self, layer: int) -> int:
        return self.rows

    def after_layer(self, layer: int, queries: np.ndarray | None) -> None:
        self.seen.append((layer, queries, self.cells.copy()))
        if layer == self.stop_at:
            raise Cancelled("seen enough")


def whole(ids: list[int]) -> list[Chunk]:
    return [Chunk(ids, range(len(ids)), slice(0, len(ids)))]


def empty(engine) -> np.ndarray:
    return np.zeros(engine.layout.shape(LENGTH), engine.layout.storage_dtype)


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def ids() -> list[int]:
    return np.random.default_rng(4).integers(0, VOCAB_SIZE, LENGTH).tolist()


def test_queries_and_keys_give_the_attention_of_transformers(family, ids) -> None:
    engine = load_engine(family)
    model = AutoModelForCausalLM.from_pretrained(family, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = model(torch.tensor([ids]), output_attentions=True).attentions
    cells = empty(engine)
    watch = Watch(cells)
    engine.forward(cells, whole(ids), watch=watch)
    assert [layer for layer, _, _ in watch.seen] == [0, 1]
    for layer, queries, seen in watch.seen:
        keys = seen[layer, 0].repeat(queries.shape[1] // seen.shape[3], axis=1)
        scores = np.einsum("whd,nhd->hwn", queries, keys) / np.sqrt(queries.shape[2])
        hidden = np.arange(LENGTH) > np.arange(LENGTH - WINDOW, LENGTH)[:, None]
        scores = torch.from_numpy(np.where(hidden, -np.inf, scores)).softmax(-1)
        np.testing.assert_allclose(scores, expected[layer][0, :, -WINDOW:], atol=1e-5)


@pytest.mark.parametrize("start", [0, 13, LENGTH - 1, LENGTH - 3])
def test_watching_changes_no_bit_and_sees_only_new_queries(family, ids, start) -> None:
    engine = load_engine(family)
    plain, watched = empty(engine), empty(engine)
    for cells in (plain, watched):
        if start:
            engine.forward(cells, whole(ids[:start]))
    watch = Watch(watched)
    chunks = [Chunk(ids[start:], range(start, LENGTH), slice(0, LENGTH))]
    expected = engine.forward(plain, chunks)
    assert engine.forward(watched, chunks, watch=watch).tobytes() == expected.tobytes()
    assert watched.tobytes() == plain.tobytes()
    assert all(len(queries) == min(WINDOW, LENGTH - start) for _, queries, _ in watch.seen)


def test_the_layers_come_one_after_the_other_and_without_queries_unasked(family, ids) -> None:
    engine = load_engine(family)
    cells = empty(engine)
    watch = Watch(cells, rows=0)
    engine.forward(cells, whole(ids), watch=watch)
    (_, none, first), (_, nothing, second) = watch.seen
    assert none is None
    assert nothing is None
    assert first[0].any(axis=(0, 2, 3)).all()
    assert not first[1].any()
    assert second[1].any(axis=(0, 2, 3)).all()


def test_a_watch_that_raises_ends_the_pass(family, ids) -> None:
    engine = load_engine(family)
    cells = empty(engine)
    expected = engine.forward(empty(engine), whole(ids))
    with pytest.raises(Cancelled, match="seen enough"):
        engine.forward(cells, whole(ids), watch=Watch(cells, stop_at=0))
    assert not cells[1].any()
    assert engine.forward(cells, whole(ids)).tobytes() == expected.tobytes()


def test_a_long_chunk_over_earlier_cells_is_cut_into_blocks(family, ids, monkeypatch) -> None:
    engine = load_engine(family)
    expected = engine.forward(empty(engine), whole(ids))
    monkeypatch.setattr(paged_attention, "BLOCK_ROWS", 8)
    cells = empty(engine)
    engine.forward(cells, whole(ids[:5]))
    chunk = Chunk(ids[5:], range(5, LENGTH), slice(0, LENGTH))
    logits = engine.forward(cells, [chunk])
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_reference_model_shows_its_only_layer() -> None:
    engine = ReferenceEngine()
    cells = empty(engine)
    watch = Watch(cells)
    engine.forward(cells, whole(list(range(65, 65 + LENGTH))), watch=watch)
    ((layer, queries, seen),) = watch.seen
    assert (layer, queries.shape) == (0, (WINDOW, 1, 1))
    assert (queries[:, 0, 0] == seen[0, 0, -WINDOW:, 0, 0]).all()


def test_the_emulated_layer_is_done_after_half_the_time() -> None:
    now_s, seen_at_s = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    class Timed(Watch):
        def after_layer(self, layer: int, queries: np.ndarray | None) -> None:
            seen_at_s.append(now_s)

    profile = CloudProfile("x", "y", PrefillCost(1.0, 0.5, 0.0), (DecodeCost(1.0, 0.0, 0.0),))
    engine = EmulatedEngine(profile, sleep=sleep, clock=lambda: now_s)
    cells = empty(engine)
    engine.forward(cells, whole([66] * LENGTH), watch=Timed(cells))
    assert (seen_at_s, now_s) == ([10.5], 21.0)
