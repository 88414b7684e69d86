"""The benchmarks of KV transfer at a small size: their keys, and what must hold at any size."""

from __future__ import annotations

import pytest

from benchmarks import kv_soak, kv_transfer
from segue_cloud.kv.backends.base import TRANSFERS, TransferName
from segue_cloud.kv.layout import KvLayout

LAYOUT = KvLayout(num_layers=2, num_kv_heads=2, head_dim=16, dtype="bfloat16")
WAYS = ("per_block_s", "one_call_s", "block_free_s", "raw_s", "memcpy_scatter_s")


@pytest.mark.parametrize("backend", TRANSFERS)
def test_every_way_of_a_transfer_is_measured(backend: TransferName) -> None:
    case = kv_transfer.measure(backend, "small", LAYOUT, 72, repetitions=2)
    assert (case["layout"], case["tokens"], case["backend"]) == ("small", 72, backend)
    measured = {way for way in WAYS if case[way] is not None}
    assert measured == set(WAYS if backend == "nixl" else WAYS[2:])
    assert all(case[way] > 0 for way in (*measured, "digest_s", "cpu_s"))
    assert all(case["medians"][way] >= case[way] for way in measured)


@pytest.mark.parametrize("backend", TRANSFERS)
def test_a_soak_leaves_nothing_behind(backend: TransferName) -> None:
    row = kv_soak.measure(backend, 120)
    assert row["after"] == row["before"]
    assert row["given_up"] > 0
    assert row["expired"] > 0
    assert sum(row[fate] for fate in kv_soak.REASONS) == 120
