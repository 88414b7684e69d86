"""Scorers over the queries and keys that a real prefill leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segue_cloud.engine.base import Chunk
from segue_cloud.engine.loading import load_engine
from segue_cloud.engine.torch_engine import TorchEngine
from segue_cloud.refine.attention import (
    AttentionScorer,
    OneLayer,
    all_layers,
    attention_of,
    max_pool,
)
from segue_cloud.refine.guards import Guards
from segue_cloud.refine.key_norm import KeyNormScorer
from segue_cloud.refine.ranges import keep_ranges
from segue_cloud.refine.refiner import Refiner, RefiningWatch
from segue_protocol.errors import Cancelled, InvalidRequest
from tests.unit.engine_models import VOCAB_SIZE, write_model

LENGTH = 120
GUARDS = Guards(())
RNG = np.random.default_rng(3)
IDS = RNG.integers(0, VOCAB_SIZE, LENGTH).tolist()


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def engine(request, tmp_path_factory) -> TorchEngine:
    model: Path = write_model(tmp_path_factory.mktemp("model") / "llama", num_hidden_layers=5)
    return load_engine(model, dtype=request.param)


def refine(engine: TorchEngine, refiner: Refiner, where=slice(0, LENGTH)):
    """Cells, lists found with how far the model was, and the watch."""
    count = LENGTH if isinstance(where, slice) else int(where.max()) + 1
    cells = np.zeros(engine.layout.shape(count), engine.layout.storage_dtype)
    found: list[tuple[int, list[tuple[int, int]]]] = []

    def tell(kept: list[tuple[int, int]]) -> None:
        written = cells.any(axis=(1, 2, 3, 4)).sum()
        found.append((int(written), kept))

    watch = refiner.watch(IDS, 0.5, cells, where, tell)
    engine.forward(cells, [Chunk(IDS, range(LENGTH), where)], watch=watch)
    return cells, found


def test_attention_is_torchs(engine) -> None:
    queries = RNG.standard_normal((7, 6, 8)).astype(np.float32)
    keys = RNG.standard_normal((20, 2, 8)).astype(np.float32)
    logits = torch.einsum(
        "whd,nhd->hwn", torch.from_numpy(queries), torch.from_numpy(keys).repeat_interleave(3, 1)
    )
    hidden = torch.ones(7, 20, dtype=torch.bool).triu(20 - 7 + 1)
    expected = (logits / 8**0.5).masked_fill(hidden, float("-inf")).softmax(-1)
    np.testing.assert_allclose(attention_of(queries, keys), expected, atol=1e-6)


def test_pooling_takes_the_largest_neighbour() -> None:
    values = np.array([[0, 5, 0, 0, 0, 1, 0]], np.float32)
    assert max_pool(values, 3).tolist() == [[5, 5, 5, 0, 1, 1, 1]]
    assert max_pool(values, 1).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("scorer", "layers_done"),
    [
        (AttentionScorer(), 2),
        (AttentionScorer(OneLayer(3)), 4),
        (AttentionScorer(all_layers), 5),
        (KeyNormScorer(), 5),
    ],
)
def test_the_list_is_made_in_its_last_layer(engine, scorer, layers_done) -> None:
    refiner = Refiner(engine.layout, GUARDS, scorer=scorer)
    cells, found = refine(engine, refiner)
    ((written, kept),) = found
    assert written == layers_done
    scores = np.zeros(LENGTH, np.float32)
    window = scorer.window

    class Capture:
        def wants_queries(self, layer):
            return window

        def after_layer(self, layer, queries):
            if layer in scorer.layers(5):
                nonlocal scores
                scores = scores + scorer.score(queries, engine.layout.numbers(again[layer, 0]))

    again = np.zeros_like(cells)
    engine.forward(again, [Chunk(IDS, range(LENGTH), slice(0, LENGTH))], watch=Capture())
    assert kept == keep_ranges(scores, IDS, 0.5, GUARDS)
    assert len(set(scores.tolist())) > 5, "it tells tokens apart"


def test_the_list_does_not_depend_on_where_the_cells_lie(engine) -> None:
    refiner = Refiner(engine.layout, GUARDS)
    _, plain = refine(engine, refiner)
    _, scattered = refine(engine, refiner, np.random.default_rng(0).permutation(200)[:LENGTH])
    assert plain[0][1] == scattered[0][1]


def test_a_pass_that_nobody_wants_any_more_ends_between_layers(engine) -> None:
    refiner = Refiner(engine.layout, GUARDS)
    cells = np.zeros(engine.layout.shape(LENGTH), engine.layout.storage_dtype)
    watch: RefiningWatch
    watch = refiner.watch(IDS, 0.5, cells, slice(0, LENGTH), lambda kept: watch.stop())
    with pytest.raises(Cancelled):
        engine.forward(cells, [Chunk(IDS, range(LENGTH), slice(0, LENGTH))], watch=watch)
    assert cells[:3].any(axis=(1, 2, 3, 4)).all()
    assert not cells[3:].any()


def test_the_layer_that_ends_two_fifths() -> None:
    assert {n: OneLayer()(n) for n in (1, 2, 5, 32, 40)} == {
        **{1: [0], 2: [0], 5: [1]},
        **{32: [12], 40: [15]},
    }
    with pytest.raises(InvalidRequest, match="layer 5, expected 0 to 4"):
        OneLayer(5)(5)
    assert list(KeyNormScorer().layers(1)) == [0]
