"""The cluster's benchmarks at a small size: their form, and what they must show."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ratio
from benchmarks.emulated_cluster import Shape
from benchmarks.forwarding import Target, compare, figures, table
from benchmarks.split_requests import Seen
from benchmarks.streaming import measure
from benchmarks.workload import Length, fitting, poisson, read_trace, synthetic
from segue_cloud.profiles.published import find_profile
from segue_protocol.errors import Overloaded

ROW = {"slo_success", "goodput_rps", "p99_ttft_s", "refused", "requests"}


def _compare(duration_s: float) -> dict[str, Any]:
    return compare(
        find_profile("a100-80g-opt-13b-tp1"),
        Shape(prefill_workers=2, decode_workers=1),
        Target(),
        fitting(synthetic(3, 500), 4096),
        loads=(3.0,),
        duration_s=duration_s,
        report_s=0.5,
        seed=3,
    )


def test_the_report_of_the_forwarding_benchmark() -> None:
    report = _compare(duration_s=4.0)
    assert report["emulated"] is True
    assert report["profile"] == "a100-80g-opt-13b-tp1"
    assert report["instances"] == 3
    (row,) = report["loads"]
    assert set(row) == {"load", "on_demand", "queued", "queued_informed"}
    assert all(set(row[way]) == ROW for way in row if way != "load")
    assert row["on_demand"]["requests"] == row["queued"]["requests"]
    assert row["on_demand"]["goodput_rps"] > row["queued"]["goodput_rps"]
    assert row["on_demand"]["goodput_rps"] > row["queued_informed"]["goodput_rps"]
    assert "Emulated accelerators" in table({**report, "lengths": "synthetic"})


def test_a_virtual_clock_gives_the_same_figures_again() -> None:
    assert _compare(duration_s=0.5) == _compare(duration_s=0.5)


def test_refused_requests_and_long_gaps_are_failures() -> None:
    seen = [
        Seen([0.5, 0.6]),
        Seen([0.5, 0.9]),
        Seen([1.1, 1.2]),
        Seen([], Overloaded("full")),
        Seen([0.1], Overloaded("cut off")),
    ]
    row = figures(seen, Target(ttft_s=1.0, gap_s=0.25), duration_s=2.0)
    assert row["slo_success"] == 1 / 5
    assert row["goodput_rps"] == 1 / 2
    assert row["p99_ttft_s"] == 1.1
    assert row["refused"] == 2
    assert Seen().ttft_s == math.inf


def test_the_synthetic_lengths_have_the_quantiles_they_name() -> None:
    lengths = synthetic(1, 20_000)
    prompts, outputs = (
        sorted(getattr(each, name) for each in lengths) for name in ("prompt", "output")
    )
    assert prompts[10_000] == pytest.approx(1020, rel=0.05)
    assert prompts[18_000] == pytest.approx(2735, rel=0.05)
    assert outputs[10_000] == pytest.approx(129, rel=0.05)
    assert outputs[18_000] == pytest.approx(424, rel=0.05)
    arrivals = poisson(lengths, rate_rps=50.0, duration_s=40.0, seed=1)
    assert len(arrivals) == pytest.approx(2000, rel=0.1)
    assert all(a.at_s < b.at_s < 40.0 for a, b in itertools.pairwise(arrivals))


def test_a_trace_is_read_as_it_lies_there(tmp_path: Path) -> None:
    """CRLF, and no newline at the end."""
    path = tmp_path / "trace.csv"
    path.write_bytes(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        b"2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,9000,5"
    )
    lengths = read_trace(path)
    assert lengths == [Length(374, 44), Length(9000, 5)]
    assert fitting(lengths, 4096) == [Length(374, 44)]


def test_the_report_of_the_streaming_benchmark() -> None:
    report = measure(streams=3, tokens=12, rounds=1, idle_streams=4)
    assert {
        "ratio_tokens_per_s",
        "coalesced_ratio",
        "added_latency_p50_us",
        "cpu_us_per_token",
        "bytes_per_idle_stream",
    } < set(report)
    assert report["tokens_per_message"]["gateway"] == 1
    assert report["tokens_per_message"]["coalesced"] >= 1
    assert min(report["tokens_per_s"].values()) > 0


def test_the_automatic_ratio_follows_the_load_and_loses_nothing() -> None:
    """Its lead over the best fixed ratio needs longer phases, which the benchmark has."""
    report = ratio.compare(phase_s=12.0, seed=1)
    assert set(report["fixed"]) == {"1:3", "2:2", "3:1"}
    assert report["lost_requests"] == 0
    assert report["switches"] > 1
    assert report["auto_rps"] > min(report["fixed"].values())
