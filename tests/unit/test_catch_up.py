"""What the engine does next: one row a rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segue_device.catch_up import View, Work, next_work, wait_s

CAUGHT_UP = View(
    prefill_left_tokens=0,
    absorbed_tokens=5,
    log_tokens=5,
    credit_through=10,
    device_writes=False,
    cloud_alive=True,
    takeover_forced=False,
    over=False,
    paused=False,
    silence_s=0.0,
    patience_s=0.2,
)


@pytest.mark.parametrize(
    ("changes", "work"),
    [
        ({}, Work.WAIT),
        ({"over": True}, Work.STOP),
        ({"over": True, "prefill_left_tokens": 100}, Work.STOP),
        ({"prefill_left_tokens": 1}, Work.PREFILL),
        ({"prefill_left_tokens": 1, "cloud_alive": False}, Work.PREFILL),
        ({"log_tokens": 9}, Work.ABSORB),
        ({"log_tokens": 9, "takeover_forced": True}, Work.ABSORB),
        ({"credit_through": 5}, Work.TAKE_OVER),
        ({"cloud_alive": False}, Work.TAKE_OVER),
        ({"takeover_forced": True}, Work.TAKE_OVER),
        ({"silence_s": 0.2}, Work.TAKE_OVER),
        ({"log_tokens": 0, "absorbed_tokens": 0}, Work.TAKE_OVER),
        ({"device_writes": True}, Work.DECODE),
        ({"device_writes": True, "log_tokens": 6}, Work.ABSORB),
        ({"device_writes": True, "paused": True}, Work.WAIT),
        ({"prefill_left_tokens": 1, "paused": True}, Work.WAIT),
        ({"paused": True, "over": True}, Work.STOP),
    ],
)
def test_next_work(changes: dict[str, object], work: Work) -> None:
    assert next_work(replace(CAUGHT_UP, **changes)) is work


def test_patience_runs_out() -> None:
    assert wait_s(replace(CAUGHT_UP, silence_s=0.15)) == pytest.approx(0.05)
    assert wait_s(replace(CAUGHT_UP, silence_s=9.0)) == 0.0
    assert wait_s(replace(CAUGHT_UP, silence_s=9.0, paused=True)) is None
