"""The balanced ratio, and a controller that does not oscillate."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_cloud.cluster.measures import GroupMeasures, GroupSummary
from segue_cloud.cluster.ratio import (
    Damping,
    RatioState,
    RatioView,
    balanced_prefill_workers,
    step,
)
from segue_protocol.wire import private

VIEW = RatioView(
    prefill_workers=2,
    decode_workers=2,
    prefill_s=0.1,
    decode_s=3.2,
    decode_places=32,
    rejected_share=0.3,
)
DAMPING = Damping(deadband_workers=0.75, hold_s=5.0, rest_s=15.0)


def test_the_balance_is_where_both_roles_take_the_same() -> None:
    assert balanced_prefill_workers(VIEW) == pytest.approx(2.0)
    assert balanced_prefill_workers(replace(VIEW, prefill_s=0.3)) == pytest.approx(3.0)
    assert balanced_prefill_workers(replace(VIEW, decode_s=9.6)) == pytest.approx(1.0)
    assert balanced_prefill_workers(replace(VIEW, prefill_s=None)) is None
    assert balanced_prefill_workers(replace(VIEW, decode_s=None)) is None


@given(
    st.integers(1, 8),
    st.integers(1, 8),
    st.floats(1e-3, 10),
    st.floats(1e-3, 100),
    st.integers(1, 256),
)
def test_no_other_split_of_the_workers_takes_more(
    prefill: int, decode: int, prefill_s: float, decode_s: float, places: int
) -> None:
    view = RatioView(prefill, decode, prefill_s, decode_s, places, 0.0)
    balanced = balanced_prefill_workers(view)
    assert balanced is not None
    total = prefill + decode

    def rate(prefill_workers: float) -> float:
        rest = total - prefill_workers
        return min(prefill_workers / prefill_s, rest * places / decode_s)

    assert rate(balanced) >= max(rate(total * k / 100) for k in range(101)) * (1 - 1e-9)


def _run(
    views: list[RatioView], state: RatioState | None = None
) -> tuple[list[tuple[int, private.Role]], RatioState]:
    """One step a second."""
    state = state or RatioState()
    switches = []
    for now_s, view in enumerate(views):
        state, role = step(state, view, float(now_s), DAMPING)
        if role is not None:
            switches.append((now_s, role))
    return switches, state


def test_a_lasting_lack_is_helped_once_and_again_after_a_rest() -> None:
    short_of_prefill = replace(VIEW, prefill_s=0.6)  # balance 3.4
    assert _run([short_of_prefill] * 20)[0] == [(5, private.ROLE_PREFILL)]
    assert _run([short_of_prefill] * 26)[0] == [
        (5, private.ROLE_PREFILL),
        (20, private.ROLE_PREFILL),
    ]
    short_of_decode = replace(VIEW, decode_s=20.0)
    assert _run([short_of_decode] * 8)[0] == [(5, private.ROLE_DECODE)]


def test_noise_and_small_lacks_switch_nothing() -> None:
    noisy = [replace(VIEW, prefill_s=0.6 if now % 4 < 2 else 0.1) for now in range(60)]
    assert _run(noisy)[0] == []
    assert _run([replace(VIEW, prefill_s=0.15)] * 60)[0] == []  # balance 2.4
    assert _run([replace(VIEW, prefill_s=0.6, rejected_share=0.0)] * 60)[0] == []


def test_one_worker_of_each_role_stays() -> None:
    extreme = replace(VIEW, prefill_workers=3, decode_workers=1, prefill_s=100.0)
    assert _run([extreme] * 60)[0] == []
    extreme = replace(VIEW, prefill_workers=1, decode_workers=3, decode_s=1e4)
    assert _run([extreme] * 60)[0] == []


@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=120))
def test_never_two_switches_within_the_rest(prefills_s: list[float]) -> None:
    switches, _ = _run([replace(VIEW, prefill_s=each) for each in prefills_s])
    times = [now_s for now_s, _ in switches]
    assert all(b - a >= DAMPING.rest_s for a, b in pairwise(times))


def test_what_nobody_asks_for_is_forgotten_too() -> None:
    measures = GroupMeasures(window_s=10.0)
    for now_s in range(1000):
        measures.offered(float(now_s), rejected=True)
        measures.answered(float(now_s), prefill_s=0.1, decode_s=0.1, cloud_tokens=1)
    assert len(measures) == 2 * 11


def test_the_window_slides_and_restarts() -> None:
    measures = GroupMeasures(window_s=10.0)
    assert measures.summary(0.0) == GroupSummary()
    for now_s in range(20):
        measures.answered(
            float(now_s), prefill_s=0.1 if now_s < 10 else 0.3, decode_s=2.0, cloud_tokens=now_s
        )
        measures.offered(float(now_s), rejected=now_s >= 15)
    found = measures.summary(19.5)
    assert found.prefill_s == pytest.approx(0.3)
    assert found.decode_s == pytest.approx(2.0)
    assert found.requests_per_s == pytest.approx(1.0)
    assert found.cloud_tokens == pytest.approx(14.5)
    assert found.rejected_share == pytest.approx(0.5)
    measures.restart(20.0)
    assert measures.summary(21.0) == GroupSummary()
    measures.answered(22.0, prefill_s=1.0, decode_s=1.0, cloud_tokens=1)
    assert measures.summary(24.0).requests_per_s == pytest.approx(0.25)
