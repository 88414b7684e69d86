"""The speed controller on a virtual clock: pure steps, no loop."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_device.pacing import Pacer, PaceView, Pacing

INTERVAL_S = 0.05


def _show(
    arrivals_s: list[float],
    *,
    takeover: int,
    device_rate_tps: float = 20.0,
    pacing: Pacing | None = None,
) -> list[float]:
    """When each token is shown, for tokens that arrive at these times."""
    pacer = Pacer(pacing or Pacing())
    shown: list[float] = []
    now = 0.0
    for index in range(len(arrivals_s)):
        now = max(now, arrivals_s[index])
        while True:
            arrived = sum(arrival <= now for arrival in arrivals_s)
            view = PaceView(
                backlog_tokens=arrived - index,
                show_interval_s=INTERVAL_S,
                device_rate_tps=device_rate_tps,
                device_writes=arrived > takeover,
                complete=arrived == len(arrivals_s),
                expected_s=0.5 if arrived == takeover else 0.0,
            )
            due = pacer.due_s(view, now)
            if due <= now:
                break
            now = due
        pacer.shown(due, now)
        shown.append(now)
    return shown


def _gaps(shown: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(shown)]


def test_the_first_token_is_never_delayed() -> None:
    assert _show([0.7, 0.8], takeover=9)[0] == 0.7


def test_a_burst_becomes_a_steady_pace_and_the_hole_behind_it_is_not_seen() -> None:
    """20 tokens at once, then nothing for 0.8 s, then the device at its own rate."""
    burst = [0.2] * 20
    device = [1.0 + INTERVAL_S * number for number in range(40)]
    shown = _show(burst + device, takeover=20)
    assert max(_gaps(shown)) < 0.25
    assert _gaps(shown)[:9] == pytest.approx([INTERVAL_S] * 9)


@pytest.mark.parametrize("hole_s", [0.2, 0.5, 0.8])
def test_a_short_buffer_is_stretched_over_a_hole(hole_s: float) -> None:
    """hole / 0.25 s buffered tokens are enough for no visible stall."""
    buffered = math.ceil(hole_s / 0.25)
    cloud = [0.0] * (1 + buffered)  # the first is shown at once
    device = [hole_s + INTERVAL_S * number for number in range(30)]
    assert max(_gaps(_show(cloud + device, takeover=len(cloud)))) <= 0.25


def test_without_pacing_everything_goes_out_at_once() -> None:
    arrivals = [0.0, 0.0, 0.5, 0.5]
    assert _show(arrivals, takeover=9, pacing=Pacing.off()) == arrivals


def test_the_rest_is_flushed_once_the_end_is_known() -> None:
    shown = _show([0.0] * 50, takeover=99)
    assert shown[-1] <= Pacing().flush_s + 1e-9
    assert max(_gaps(shown)) < INTERVAL_S


@given(
    st.lists(st.floats(0.0, 0.4), min_size=1, max_size=60),
    st.integers(0, 60),
    st.floats(5.0, 60.0),
)
def test_order_no_token_before_its_arrival_and_no_loss(
    gaps_s: list[float], takeover: int, rate: float
) -> None:
    arrivals, now = [], 0.0
    for gap in gaps_s:
        now += gap
        arrivals.append(now)
    shown = _show(arrivals, takeover=takeover, device_rate_tps=rate)
    assert len(shown) == len(arrivals)
    assert shown == sorted(shown)
    assert all(at >= arrival for at, arrival in zip(shown, arrivals, strict=True))
    # Never longer behind the last arrival than the flush allows.
    assert shown[-1] <= arrivals[-1] + Pacing().flush_s + 1e-6 or shown[-1] <= shown[-2] + 0.5
