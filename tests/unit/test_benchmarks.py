"""The benchmarks that run on a virtual clock keep their form, and what the README says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pacing import HOLES_S, INTERVAL_S, STALL_S, judge, show_segue, synthetic

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {
    "max_gap_s",
    "p99_gap_s",
    "stalls_250ms_per_answer",
    "burstiness",
    "added_ttft_s",
    "e2e_ratio",
}


def test_the_report_of_the_pacing_benchmark() -> None:
    command = [sys.executable, "-m", "benchmarks.pacing", "--json", "--answers", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    assert set(report) == {"policies", "cases"}
    assert {f"synthetic, hole {hole_s} s" for hole_s in HOLES_S} < set(report["cases"])
    for figures in (report, *report["cases"].values()):
        assert set(figures["policies"]) == {"none", "fixed", "backlog", "segue"}
        assert all(set(row) == FIGURES for row in figures["policies"].values())
    assert report["policies"]["none"]["stalls_250ms_per_answer"] > 0, "there is something to do"


@pytest.mark.parametrize("hole_s", HOLES_S)
def test_a_buffer_that_can_bridge_the_hole_does(hole_s: float) -> None:
    answers = [synthetic(seed, hole_s) for seed in range(1000, 1100)]
    for answer in answers:
        # What is buffered when the last of the cloud's tokens has come.
        came_s = answer.received_s[answer.cloud_tokens - 1] - answer.received_s[0]
        assert answer.cloud_tokens - came_s / INTERVAL_S >= hole_s / STALL_S, "the premise"
    figures = judge(show_segue, answers)
    assert figures["stalls_250ms_per_answer"] == 0
    assert figures["added_ttft_s"] == 0
    assert figures["e2e_ratio"] <= 1.05
