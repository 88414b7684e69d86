"""The modes benchmark at a small size: how goodput is found, and what a row says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.goodput import MOST_RPS, Target, highest_rate
from benchmarks.modes import AGGREGATED, PD, UNIFIED, Size, emulated_rows, table
from benchmarks.split_requests import Seen
from benchmarks.workload import Length, requests_at
from segue_cloud.profiles.published import find_profile
from segue_protocol.errors import Overloaded

TARGET = Target(ttft_s=1.0, tpot_s=0.1)


def test_a_request_counts_when_it_meets_both_targets_and_ends() -> None:
    seen = [
        Seen([0.9, 1.0, 1.09]),
        Seen([1.1, 1.2]),
        Seen([0.5, 0.5, 0.8]),
        Seen([0.5, 0.9, 0.6], Overloaded("lost on the way")),
        Seen([], Overloaded("full")),
    ]
    assert [each.tpot_s for each in seen] == pytest.approx([0.095, 0.1, 0.15, 0.05, 0.0])
    assert Seen().ttft_s == math.inf
    assert TARGET.attained(seen) == 1 / 5
    assert TARGET.met_by([Seen([0.1])] * 9 + [Seen()])
    assert not TARGET.met_by([Seen([0.1])] * 8 + [Seen()] * 2)


@pytest.mark.parametrize("limit_rps", [0.3, 1.0, 7.7, 100.0])
def test_the_highest_rate_is_found_from_below(limit_rps: float) -> None:
    found = highest_rate(lambda rate: rate <= limit_rps, start_rps=0.5, steps=6)
    assert found <= limit_rps < found + max(found, 0.5) / 2**6 + 1e-9
    assert highest_rate(lambda rate: True, start_rps=1.0, steps=2) <= MOST_RPS * 2
    assert highest_rate(lambda rate: False, start_rps=1.0, steps=2) == 0.0


def test_the_same_requests_come_at_every_rate() -> None:
    lengths = [Length(place, place) for place in range(1, 9)]
    slow, fast = (requests_at(lengths, rate, 40.0, seed=3) for rate in (1.0, 4.0))
    assert len(fast) > len(slow) >= 30
    assert fast[-1].at_s >= 40.0 > fast[-2].at_s
    fast = fast[: len(slow)]
    assert [each.length for each in slow] == [each.length for each in fast]
    assert [each.at_s for each in slow] == pytest.approx([4 * each.at_s for each in fast])
    assert len(requests_at(lengths, 1.0, 1.0, seed=3)) == 30


def test_the_rows_of_the_modes_benchmark() -> None:
    # Where only prefill is short, two that prefill serve more than one does.
    target, lengths = Target(ttft_s=0.6, tpot_s=0.5), [Length(prompt=1500, output=12)]
    ways = {
        "pd": [PD],
        "unified": [UNIFIED],
        "aggregated": [replace(AGGREGATED, iteration_tokens=1024)],
    }
    rows = emulated_rows(
        find_profile("a100-80g-opt-13b-tp1"), [target], Size(lengths, span_s=4.0, steps=1), ways
    )
    assert [row["answers"] for row in rows] == ["whole", "split"]
    for row in rows:
        assert {"engine", "ttft_s", "tpot_s", "pd_rps", "unified_rps", "aggregated_rps"} <= set(row)
        assert row["engine"] == "emulated"
        assert row["aggregated_rps"] > row["pd_rps"] > 0
        assert row["unified_prefill_share"] == 0.5
    report = {"rows": rows, "enough": 0.9, "profile": "p", "span_s": 4.0, "real_span_s": 0.0}
    assert "aggregated" in table(report)
