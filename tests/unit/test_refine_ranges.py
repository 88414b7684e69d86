"""The list of kept ranges: guarded, never inside a character, as long as it was asked to be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_cloud.refine.guards import FIRST_TOKENS, LAST_TOKENS, TEMPLATE_TOKENS, Guards
from segue_cloud.refine.ranges import keep_ranges
from segue_protocol.errors import InvalidRequest
from segue_protocol.reference import USER_ID, reference_vocabulary

GUARDS = Guards.of(reference_vocabulary())
# Texts of every width in UTF-8, as bytes, which are this vocabulary's tokens.
TEXTS = st.text(st.sampled_from("ab €ü日🙂"), min_size=1, max_size=120)
RATIOS = st.floats(0.01, 1.0)


@st.composite
def prompts(draw: st.DrawFn) -> list[int]:
    """Texts with special tokens between characters."""
    parts = draw(st.lists(TEXTS, min_size=1, max_size=3))
    return [token for part in parts for token in (*part.encode(), USER_ID)][:-1]


def scores_of(ids: list[int], seed: int = 0) -> np.ndarray:
    # Few values, so that many are equal.
    return np.random.default_rng(seed).integers(0, 4, len(ids)).astype(np.float32)


def kept(ids: list[int], ratio: float, seed: int = 0, chunk_tokens: int = 4) -> list[int]:
    ranges = keep_ranges(scores_of(ids, seed), ids, ratio, GUARDS, chunk_tokens=chunk_tokens)
    assert all(start < end for start, end in ranges)
    assert all(before[1] < after[0] for before, after in pairwise(ranges))
    return [position for start, end in ranges for position in range(start, end)]


@given(prompts(), RATIOS, st.integers(1, 40))
def test_what_must_stay_stays_and_characters_are_whole(ids, ratio, chunk_tokens) -> None:
    positions = set(kept(ids, ratio, chunk_tokens=chunk_tokens))
    length = len(ids)
    assert {*range(min(FIRST_TOKENS, length)), *range(max(0, length - LAST_TOKENS), length)} <= (
        positions
    )
    for place, token in enumerate(ids):
        if token == USER_ID:
            assert set(range(place, min(place + 1 + TEMPLATE_TOKENS, length))) <= positions
        if place and 0x80 <= token < 0xC0:  # inside a character
            assert (place in positions) == (place - 1 in positions)


@given(prompts(), RATIOS, st.integers(1, 40))
def test_the_ratio_is_that_of_what_may_be_dropped(ids, ratio, chunk_tokens) -> None:
    guarded = len(kept(ids, 1e-9))
    count = len(kept(ids, ratio, chunk_tokens=chunk_tokens))
    budget = guarded + int(ratio * (len(ids) - guarded))
    assert budget - 3 <= count <= budget, "but for a character that does not fit"
    assert len(kept(ids, 1.0)) == len(ids)


@given(prompts(), RATIOS, RATIOS)
def test_a_larger_ratio_keeps_what_a_smaller_one_does(ids, one, other) -> None:
    assert set(kept(ids, min(one, other))) <= set(kept(ids, max(one, other)))


def test_the_best_chunks_are_kept_and_of_equal_ones_the_earlier() -> None:
    ids = list(b"x" * 136)  # 4 first, 32 last: a hundred may be dropped
    scores = np.zeros(136, np.float32)
    scores[[50, 90]] = 1.0, 2.0
    assert keep_ranges(scores, ids, 0.04, GUARDS) == [(0, 4), (88, 92), (104, 136)]
    assert keep_ranges(scores, ids, 0.08, GUARDS) == [(0, 4), (48, 52), (88, 92), (104, 136)]
    assert keep_ranges(scores, ids, 0.10, GUARDS) == [
        *[(0, 6), (48, 52), (88, 92), (104, 136)],
    ], "of chunks that are worth the same the earliest, and its beginning"


def test_bytes_that_are_no_text_do_not_hang_together() -> None:
    ids = [0x80] * 200
    begins = GUARDS.may_begin(ids)
    assert begins[0]
    assert np.diff(np.flatnonzero(begins)).max() <= 4
    assert len(kept(ids, 0.1)) < 60


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.5, float("nan")])
def test_a_ratio_that_makes_no_sense_is_refused(ratio: float) -> None:
    with pytest.raises(InvalidRequest, match="keep_ratio"):
        keep_ranges(np.zeros(3, np.float32), [1, 2, 3], ratio, GUARDS)


def test_as_many_scores_as_tokens() -> None:
    with pytest.raises(InvalidRequest, match="3 tokens with 2 scores"):
        keep_ranges(np.zeros(2, np.float32), [1, 2, 3], 0.5, GUARDS)
    with pytest.raises(InvalidRequest, match="one or more tokens"):
        keep_ranges(np.zeros(0, np.float32), [], 0.5, GUARDS)
