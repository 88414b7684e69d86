"""The settings of unified workers: what is refused, and what becomes of shares."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from benchmarks.compute_shares import MECHANISMS, measure
from segue_cloud.config import GroupConfig, ServeConfig, WorkerConfig
from segue_cloud.serve import configured_groups
from segue_cloud.worker.compute_share import environment_for, nice_for, share_of
from segue_cloud.worker.process import run_resident
from segue_cloud.worker.residence import Residence
from segue_protocol.errors import InvalidRequest

MPS = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
CONFIG = WorkerConfig(role="prefill", gateway="127.0.0.1:1", prefill_share=50, decode_share=80)


def test_only_the_two_of_a_resident_process_have_a_share() -> None:
    assert share_of(CONFIG) == 100
    shared = replace(CONFIG, resident="set")
    assert share_of(shared) == 50
    assert share_of(replace(shared, role="decode")) == 80


def test_a_share_is_a_weight_and_a_limit() -> None:
    assert [nice_for(share) for share in (100, 80, 50, 25, 10, 2)] == [0, 1, 3, 6, 10, 18]
    assert environment_for(50, {"PATH": "x"}) == {"PATH": "x", MPS: "50"}
    assert environment_for(100, {}) == {}


def test_a_residence_is_told_in_one_word() -> None:
    residence = Residence(pid=7, incarnation=bytes(range(16)), pool_descriptor=5)
    assert Residence.parse(str(residence)) == residence
    for text in ("", "1:2:3", "1:2:3:xyz", "a:2:3:00"):
        with pytest.raises(InvalidRequest, match="role unified"):
            Residence.parse(text)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prefill_share": 1}, "prefill_share"),
        ({"decode_share": 101}, "decode_share"),
        ({"port": 9}, "port"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, int], named: str) -> None:
    def load(config: WorkerConfig) -> None:
        raise AssertionError("loaded before the settings were looked at")

    with pytest.raises(InvalidRequest, match=named):
        asyncio.run(run_resident(replace(CONFIG, role="unified", **changes), load))


def test_a_group_with_unified_workers_has_no_ratio() -> None:
    (group,) = configured_groups(ServeConfig(unified_workers=2, prefill_workers=0))
    assert group.unified_workers == 2
    with pytest.raises(InvalidRequest, match="auto_ratio"):
        configured_groups(ServeConfig(groups=(GroupConfig(unified_workers=1, auto_ratio=True),)))


def test_the_report_of_the_shares_benchmark() -> None:
    report = measure(mechanisms=MECHANISMS[:3], shares=((10, 100),), seconds=0.1)
    assert set(report) == {"cores", "load_average", "rows"}
    assert [row["mechanism"] for row in report["rows"]] == list(MECHANISMS[:3])
    for row in report["rows"]:
        assert set(row) == {"mechanism", "x", "y", "asked", "got", "alone"}
        assert 0 < row["got"] < 1
        assert row["alone"] > 0
