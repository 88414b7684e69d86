"""The benchmark of refined prompts keeps its form, and judges what it says it judges."""

from __future__ import annotations

import pytest

from benchmarks.refinement import CONTROLS, MODEL, OURS, RATIOS, SCORERS, measure, wilson
from benchmarks.refinement_devices import CONVERTERS
from benchmarks.refinement_prompts import TAIL_TOKENS, questions
from segue_protocol.tokenizer import ChatTokenizer


@pytest.fixture(scope="module", params=CONVERTERS)
def report(request: pytest.FixtureRequest) -> dict:
    return measure({160: 1}, request.param, seed="test")


def test_every_scorer_at_every_ratio(report: dict) -> None:
    (row,) = report["lengths"].values()
    assert report["prompts"] == row["prompts"] == 1
    assert row["unrefined"] == 1.0
    assert 0 < row["list_share"] < 1
    assert set(row["scorers"]) == {*SCORERS, *CONTROLS} > {OURS}
    for ratios in row["scorers"].values():
        assert list(ratios) == [f"{ratio:g}" for ratio in RATIOS]
        assert ratios["1"]["recall"] == row["unrefined"]
        assert ratios["1"]["agreement"] == ratios["1"]["kept"] == 1
        kept = [ratios[ratio]["kept"] for ratio in ratios]
        assert kept == sorted(kept, reverse=True)
        for figures in ratios.values():
            low, high = figures["ci95"]
            assert 0 <= low <= figures["recall"] <= high + 1e-9 <= 1 + 2e-9
            assert figures["agreement"] >= figures["recall"]
    # At a ratio all keep as much, but for a character.
    for ratio in row["scorers"][OURS]:
        shares = [ratios[ratio]["kept"] for ratios in row["scorers"].values()]
        assert max(shares) - min(shares) < 3 / 100


def test_what_is_dropped_is_missed(report: dict) -> None:
    """The prompt's end alone, at .1, holds no fact that is asked for."""
    (row,) = report["lengths"].values()
    assert row["scorers"]["truncation"]["0.1"]["recall"] == 0
    assert row["scorers"]["truncation"]["0.1"]["agreement"] < 1


def test_the_prompts_never_change_and_facts_lie_outside_of_the_tail() -> None:
    tokenizer = ChatTokenizer.from_directory(MODEL)
    asked = list(questions(tokenizer, 2, 300, 6, "test"))
    assert asked == list(questions(tokenizer, 2, 300, 6, "test"))
    assert asked != list(questions(tokenizer, 2, 300, 6, "other"))
    for each in asked:
        assert len(each.ids) <= 300
        decode = tokenizer.vocabulary.decode
        assert decode(each.answer[:-1]) in decode(each.ids[:-TAIL_TOKENS])


def test_the_interval_is_wilsons() -> None:
    assert wilson(8, 10) == pytest.approx([0.4902, 0.9433], abs=1e-3)
    assert wilson(10, 10)[1] == pytest.approx(1.0)
