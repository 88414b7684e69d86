"""Token buckets by hand-made clocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_cloud.config import TenantConfig
from segue_cloud.security.rates import RequestRates, TokenBucket
from segue_protocol.errors import Overloaded


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(rate_per_s=2.0, burst=3.0)
    assert [bucket.take(1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(1000.25) == pytest.approx(0.25), "what was refused was not taken"
    assert bucket.take(1000.5) == 0.0
    assert bucket.take(1100.0) == 0.0
    assert [bucket.take(1100.0) for _ in range(3)] == [0.0, 0.0, 0.5], "never more than a burst"


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = TokenBucket(rate_per_s=1.0, burst=1.0)
    assert bucket.take(50.0) == 0.0
    assert bucket.take(10.0) == 1.0


@given(st.floats(0.1, 100.0), st.floats(1.0, 20.0), st.lists(st.floats(0.0, 1.0), max_size=200))
def test_never_more_than_burst_and_rate_allow(
    rate_per_s: float, burst: float, gaps_s: list[float]
) -> None:
    bucket, now_s, through = TokenBucket(rate_per_s, burst), 0.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        through += bucket.take(now_s) == 0.0
    assert through <= burst + rate_per_s * now_s + 1e-6


def test_tenants_do_not_share_a_bucket() -> None:
    rates = RequestRates(
        [TenantConfig("a", requests_per_s=0.5), TenantConfig("b", requests_per_s=0.5)]
    )
    rates.require("a", 0.0)
    rates.require("b", 0.0)
    with pytest.raises(Overloaded) as raised:
        rates.require("a", 0.5)
    assert raised.value.retry_after_s == pytest.approx(1.5)
    rates.require("a", 2.0)
    for _ in range(100):
        rates.require("", 2.0)
