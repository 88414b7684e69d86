"""Figures of one answer, from known moments."""

from __future__ import annotations

import pytest

from segue_device.timings import measure


def test_the_fields_definitions() -> None:
    timings = measure(
        started_s=100.0,
        ended_s=101.5,
        shown_s=[100.2, 100.3, 100.4, 100.8, 101.4],
        received_s=[100.1, 100.1, 100.1, 100.7, 101.3],
        takeover_index=3,
    )
    assert timings.ttft_s == pytest.approx(0.2)
    assert timings.tpot_s == pytest.approx((101.4 - 100.2) / 4)
    assert timings.e2e_s == pytest.approx(1.5)
    assert timings.gaps_s == pytest.approx([0.1, 0.1, 0.4, 0.6])
    assert timings.max_gap_s == pytest.approx(0.6)
    assert timings.percentile_gap_s(50) == pytest.approx(0.25)
    assert (timings.stalls(0.25), timings.stalls(1.0)) == (2, 0)
    assert timings.takeover_gap_s == pytest.approx(0.4)
    assert timings.takeover_gap_raw_s == pytest.approx(0.6)
    assert timings.received_s == pytest.approx([0.1, 0.1, 0.1, 0.7, 1.3])


def test_burstiness_is_zero_for_an_even_pace_and_grows_with_bursts() -> None:
    even = measure(0.0, 5.0, [0.05 * number + 0.001 for number in range(100)], [], None)
    bursts = measure(0.0, 5.0, [float(number // 20) for number in range(100)], [], None)
    assert even.burstiness < 0.1
    assert bursts.burstiness > 1.0


@pytest.mark.parametrize("shown_s", [[], [0.3]])
def test_answers_too_short_for_a_gap(shown_s: list[float]) -> None:
    timings = measure(0.0, 1.0, shown_s, shown_s, None)
    assert timings.tpot_s is None
    assert timings.max_gap_s == timings.percentile_gap_s(99) == timings.burstiness == 0.0
    assert timings.takeover_gap_s is None
