"""The replay's benchmarks at a small size: their form, and what they must show."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import replay as benchmark
from benchmarks import validation
from benchmarks.replay import ROW, claims, table, workload
from demos.trace.capacity import capacity, searched
from demos.trace.case import Case
from demos.trace.figures import attainment, figures
from demos.trace.limits import judge
from demos.trace.plots import PLOTS, save_plots
from demos.trace.policies import POLICIES
from demos.trace.replay import replay
from demos.trace.requests import draw_requests
from demos.trace.run import Job, run_all

NOWHERE = Path("no-such-directory")


def test_the_report_of_the_replay(tmp_path: Path) -> None:
    case = Case.load()
    report = benchmark.measure(
        case, NOWHERE, requests=40, search=0, limit_requests=12, processes=1, seed=1
    )
    json.dumps(report, allow_nan=False)
    assert {"trace", "case", "policies", "oracle", "claims", "limits", "wall_s"} <= set(report)
    assert report["trace"].startswith("synthetic")
    assert list(report["policies"]) == list(POLICIES)
    searched = {"rps_per_instance", "binding"}
    for row in report["policies"].values():
        assert set(ROW) - searched <= set(row)
    assert report["oracle"]["cloud_tokens"] > 0
    assert report["policies"]["device_only"]["cloud_tokens"] == 0
    assert report["claims"]["ttft_saved"]["met"] is True
    assert report["claims"]["tpot_mean_over_pace"]["met"] is True
    said = {name: row["says"] for name, row in report["limits"].items()}
    assert "prefills in vain" in said["very slow prefill (15 tok/s)"]
    assert "need no cloud" in said["fast device (8,000 prefill, 20 decode tok/s)"]
    assert "decodes too slowly" in said["slow decoding (800 prefill, 5 decode tok/s)"]
    text = table(report, case)
    assert all(name in text for name in POLICIES)
    for path in save_plots(report, tmp_path):
        drawn = ElementTree.parse(path)
        assert len(drawn.findall(".//{*}rect")) == 1 + len(POLICIES)
    assert {path.name for path in tmp_path.iterdir()} == {name for name, _ in PLOTS.values()}


def test_a_claim_that_does_not_hold_is_told() -> None:
    row = {
        "ttft_p50_s": 1.0,
        "tpot_mean_s": 0.06,
        "stalled_answers": 0.0,
        "cloud_tokens": 30.0,
        "slot_seconds": 1.0,
    }
    names = ("device_only", "cloud_pd", "split", "split_refined", "split_refined_r25")
    found = claims(dict.fromkeys(names, row), {"cloud_tokens": 20.0}, Case.load())
    met = {name: claim["met"] for name, claim in found.items()}
    assert met == {
        "ttft_saved": False,
        "tpot_mean_over_pace": False,
        "stalled_answers": True,
        "cloud_tokens_over_oracle": False,
        "slot_time_saved_r25": False,
        "slot_time_saved_tuner": None,
    }
    assert found["cloud_tokens_over_oracle"]["value"] == 1.5


def test_processes_change_nothing() -> None:
    case = Case.load()
    arrivals, _ = workload(NOWHERE, case.trace, 20, seed=2)
    jobs = [Job(name, case, arrivals, 0, 1) for name in ("device_only", "split")]
    told: list[tuple[int, int, int]] = []
    here, _ = run_all(jobs, processes=1, progress=lambda *each: told.append(each))
    there, _ = run_all(jobs, processes=2, progress=lambda *each: told.append(each))
    for row in (*here, *there):
        assert row.pop("cpu_s") > 0
    assert here == there
    assert told[-1] == (40, 2, 2)


@pytest.mark.parametrize("name", ["cloud_aggregated", "split"])
def test_the_capacity_found_is_one_that_is_borne(name: str) -> None:
    case = Case.load()
    case = replace(case, cloud=replace(case.cloud, search_instances=2))
    requests = draw_requests([(place / 5, 1200, 40) for place in range(150)], case, seed=1)
    found = capacity(POLICIES[name], case, requests)
    assert found.rps_per_instance is not None
    assert found.rps_per_instance > 0
    assert found.binding is not None
    case = searched(case)
    load = found.rps_per_instance * case.cloud.instances * requests[-1].at_s / len(requests)
    workers = found.prefill_workers
    borne = replay(POLICIES[name], case, requests, prefill_workers=workers, load=load)
    assert attainment(borne.outcomes, case.targets) >= case.targets.attainment
    beyond = replay(POLICIES[name], case, requests, prefill_workers=workers, load=3 * load)
    assert attainment(beyond.outcomes, case.targets) < case.targets.attainment


def test_targets_that_nobody_can_meet_are_no_capacity() -> None:
    case = Case.load()
    case = replace(case, targets=replace(case.targets, ttft_s=0.01))
    requests = draw_requests([(place / 5, 1200, 20) for place in range(10)], case, seed=1)
    found = capacity(POLICIES["split"], case, requests)
    assert found.rps_per_instance == 0
    assert found.binding == "prefill slots"


def test_a_trace_keeps_its_times_and_may_repeat(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_bytes(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        b"2023-11-16 18:15:46.6805900,374,44\r\n"
        b"2023-11-16 18:15:47.0000000,9000,0\r\n"
        b"2023-11-16 18:15:48.6805900,12,5"
    )
    rows, origin = workload(tmp_path, "trace.csv", None, 1)
    assert origin == "trace"
    assert rows == [(0.0, 374, 44), (2.0, 12, 5)]
    rows, _ = workload(tmp_path, "trace.csv", 5, 1)
    assert [at_s for at_s, _, _ in rows] == [0.0, 2.0, 3.0, 5.0, 6.0]


def test_the_simulator_agrees_with_the_real_cluster() -> None:
    """Gateway, workers and device SDK on emulated engines and a virtual clock."""
    report = validation.measure(answers=12, model=None, seed=1)
    row = report["emulated"]
    assert row["emulated"] is True
    assert row["answers"] == 12
    assert row["takeovers"]["real"] == row["takeovers"]["simulated"] > 0
    assert row["agrees"] is True
    assert set(row["ttft_s"]) == {"real", "simulated", "medians_apart", "median_apart"}
    assert "agrees: True" in validation.table(report)


def test_disagreement_is_told() -> None:
    seen = [validation.Seen(0.2, 20, 20), validation.Seen(0.3, 30, None)]
    slower = [validation.Seen(0.3, 20, 20), validation.Seen(0.45, 30, 30)]
    report = validation.compare(seen, slower)
    assert report["agrees"] is False
    assert report["ttft_s"]["medians_apart"] == pytest.approx(0.5)
    assert report["takeover_index"]["real"] == 20
    assert report["takeovers"] == {"real": 1, "simulated": 2}


def test_what_binds_is_told_as_it_is() -> None:
    case = Case.load()
    row = {
        "ttft_p50_s": 2.0,
        "tpot_mean_s": 0.05,
        "cloud_tokens": 20.0,
        "slot_seconds": 9.0,
        "taken_over": 1.0,
        "stalled_answers": 0.0,
        "rps_per_instance": 2.0,
        "binding": "prefill slots",
    }
    split = {**row, "slot_seconds": 1.0}

    def says(**changes: object) -> str:
        rows = {"device_only": row, "cloud_pd": row, "split": {**split, **changes}}
        said: str = judge(rows, case)["says"]
        return said

    assert "bound by prefill slots: the load is one of prefill." in says()
    assert says(binding="device").endswith("1.00 times as many requests, bound by device.")
    assert says(rps_per_instance=4.0) == "Nothing measured here speaks against splitting."
    assert "5% of the answers stop" in says(rps_per_instance=4.0, stalled_answers=0.05)


def test_a_percentile_among_answers_that_never_came_is_none() -> None:
    case = Case.load()
    found = replay(POLICIES["device_only"], case, draw_requests([(0.0, 50, 20)] * 4, case, 1))
    late = [replace(found.outcomes[0], ttft_s=math.inf)] * 3
    row = figures([found.outcomes[0], *late], case)
    assert row["ttft_p50_s"] is None
    assert row["ttft_p99_s"] is None
