"""What is left of a refined prompt: everything kept, nothing twice, few gaps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_device.kept_ranges import Run, remaining_runs
from segue_protocol.errors import InvalidRequest, ProtocolError


@st.composite
def refinements(draw: st.DrawFn) -> tuple[int, list[Run], int]:
    """(prompt tokens, kept, computed)."""
    bounds = draw(st.lists(st.integers(0, 400), unique=True, max_size=80).map(sorted))
    kept = list(zip(bounds[::2], bounds[1::2], strict=False))
    # Some ranges touch: a cloud may send its chunks one by one.
    split = [
        part
        for start, end in kept
        for part in ([(start, start + 1), (start + 1, end)] if end - start > 7 else [(start, end)])
    ]
    tokens = draw(st.integers(max([1, *bounds]), 401))
    return tokens, split, draw(st.integers(0, tokens))


def positions(runs: list[Run]) -> list[int]:
    return [position for start, end in runs for position in range(start, end)]


@given(refinements(), st.integers(0, 20), st.integers(0, 6))
def test_all_that_is_kept_and_not_computed_once_and_in_order(
    refinement: tuple[int, list[Run], int], filled_gap_tokens: int, max_gaps: int
) -> None:
    tokens, kept, computed = refinement
    runs = remaining_runs(
        tokens, kept, computed, filled_gap_tokens=filled_gap_tokens, max_gaps=max_gaps
    )
    found = positions(runs)
    assert found == sorted(set(found))
    assert all(start < end for start, end in runs)
    wanted = {*positions(kept), tokens - 1} - set(range(computed))
    assert wanted <= set(found)
    assert set(found) <= set(range(computed, tokens))
    # Gaps as an engine meets them: behind what is computed and between the runs.
    met = [(0, computed), *runs] if computed else runs
    gaps = [after[0] - before[1] for before, after in pairwise(met)]
    gaps = gaps[1:] if computed and runs and runs[0][0] == computed else gaps
    assert len(gaps) <= max_gaps
    assert all(gap > filled_gap_tokens for gap in gaps)


@given(refinements())
def test_nothing_is_added_where_gaps_cost_nothing(
    refinement: tuple[int, list[Run], int],
) -> None:
    tokens, kept, computed = refinement
    runs = remaining_runs(tokens, kept, computed, filled_gap_tokens=0, max_gaps=1000)
    wanted = {*positions(kept), tokens - 1} - set(range(computed))
    assert set(positions(runs)) == wanted


def test_computed_positions_are_left_out() -> None:
    kept = [(0, 40), (100, 200), (300, 400)]
    assert remaining_runs(400, kept, 0) == kept
    assert remaining_runs(400, kept, 30) == [(30, 40), (100, 200), (300, 400)]
    assert remaining_runs(400, kept, 150) == [(150, 200), (300, 400)]
    assert remaining_runs(400, kept, 250) == [(300, 400)]
    assert remaining_runs(400, kept, 400) == []


def test_short_gaps_are_filled_also_behind_what_is_computed() -> None:
    kept = [(0, 10), (22, 30), (43, 50), (50, 60)]
    assert remaining_runs(60, kept, 0) == [(0, 30), (43, 60)]
    assert remaining_runs(60, kept, 31) == [(31, 60)]
    assert remaining_runs(60, kept, 30) == [(43, 60)]
    # Nothing lies before it in the cache: there is no gap to place.
    assert remaining_runs(60, [(5, 60)], 0) == [(5, 60)]


def test_of_too_many_gaps_the_shortest_are_filled() -> None:
    kept = [(0, 10), (50, 60), (90, 100), (150, 160), (180, 200)]
    assert remaining_runs(200, kept, 0, max_gaps=2) == [(0, 10), (50, 100), (150, 200)]
    assert remaining_runs(200, kept, 0, max_gaps=0) == [(0, 200)]
    assert remaining_runs(200, kept, 20, max_gaps=2) == [(20, 60), (90, 100), (150, 200)]


def test_the_last_token_is_always_there() -> None:
    assert remaining_runs(100, [(0, 10)], 5) == [(5, 10), (99, 100)]
    assert remaining_runs(100, [], 99) == [(99, 100)]
    assert remaining_runs(100, [], 0) == [(99, 100)]


@pytest.mark.parametrize(
    "kept", [[(5, 5)], [(6, 5)], [(-1, 5)], [(0, 101)], [(10, 20), (0, 5)], [(0, 10), (9, 20)]]
)
def test_the_clouds_nonsense_is_a_protocol_error(kept: list[Run]) -> None:
    with pytest.raises(ProtocolError, match="the cloud keeps positions"):
        remaining_runs(100, kept, 0)


def test_the_callers_nonsense_is_refused() -> None:
    for tokens, computed in ((0, 0), (10, 11), (10, -1)):
        with pytest.raises(InvalidRequest, match="computed"):
            remaining_runs(tokens, [], computed)
    for bounds in ({"filled_gap_tokens": -1}, {"max_gaps": -1}):
        with pytest.raises(InvalidRequest, match="expected 0 or more"):
            remaining_runs(10, [], 0, **bounds)
