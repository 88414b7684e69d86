"""What answers teach: followed where it is usual, ignored where it is strange, until it stays."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_device.decode_clock import DecodeClock
from segue_device.learning import (
    LEAST_ERROR,
    PERSISTENT,
    START_ERROR,
    USUAL_RELATIVE,
    WEIGHT,
    DeviceSpeed,
    NetworkSpeed,
    Seen,
    Track,
    follow,
)
from segue_device.prefill_clock import PrefillClock
from segue_protocol.timeline import DeviceProfile

PROFILE = DeviceProfile(0.02, 1 / 800, 1e-8, 0.05, 0.02)


def _live(device: DeviceProfile, answers: int, sigma: float = 0.0, seed: int = 1) -> DeviceSpeed:
    """Learn on from PROFILE on a device that is really `device`."""
    rng, speed = random.Random(seed), DeviceSpeed.of(PROFILE)
    for _ in range(answers):
        known = speed.profile
        seen = Seen(
            device.prefill_s(1000) / known.prefill_s(1000) * math.exp(rng.gauss(0, sigma)),
            device.decode_s / known.decode_s * math.exp(rng.gauss(0, sigma)),
        )
        speed = speed.after(seen)
    return speed


def _slower(times: float) -> DeviceProfile:
    return replace(
        PROFILE,
        prefill_base_s=PROFILE.prefill_base_s * times,
        prefill_per_token_s=PROFILE.prefill_per_token_s * times,
        prefill_per_token2_s=PROFILE.prefill_per_token2_s * times,
        decode_s=PROFILE.decode_s * times,
    )


@pytest.mark.parametrize("times", [0.5, 0.8, 1.2, 2.0, 5.0])
def test_the_profile_comes_to_what_the_device_is(times: float) -> None:
    learnt = _live(_slower(times), answers=80).profile
    assert learnt.prefill_s(1000) == pytest.approx(_slower(times).prefill_s(1000), rel=0.03)
    assert learnt.decode_s == pytest.approx(_slower(times).decode_s, rel=0.03)
    learnt.validate()


@pytest.mark.parametrize("sigma", [0.03, 0.1])
def test_the_error_comes_to_the_deviation_of_the_device(sigma: float) -> None:
    errors = [_live(PROFILE, 100, sigma, seed).profile.relative_error for seed in range(20)]
    assert sum(errors) / len(errors) == pytest.approx(sigma, rel=0.3)
    assert _live(PROFILE, 100).profile.relative_error == LEAST_ERROR


@given(st.sampled_from((1 / 50, 1 / 3, 3.0, 1000.0)), st.integers(1, PERSISTENT - 1))
def test_a_pause_or_a_build_is_not_learnt(times: float, answers: int) -> None:
    speed = DeviceSpeed.of(replace(PROFILE, relative_error=0.05))
    for _ in range(answers):
        speed = speed.after(Seen(times, times))
    assert speed.profile == replace(PROFILE, relative_error=0.05)
    usual = speed.after(Seen(1.0, 1.0))
    assert usual.prefill.strange == usual.decode.strange == 0


def test_what_stays_is_followed_slowly() -> None:
    track, shift = Track(0.05, PERSISTENT - 1), 0.0
    for _ in range(3):
        track, shift = follow(track, 3.0, USUAL_RELATIVE)
        assert shift == pytest.approx(WEIGHT * USUAL_RELATIVE)
    track, shift = follow(track, -3.0, USUAL_RELATIVE)
    assert (track.strange, shift) == (-1, 0.0)


@given(
    st.floats(0.001, 1),
    st.integers(-9, 9),
    st.floats(-1e6, 1e6),
    st.floats(0.01, 1),
)
def test_no_single_answer_moves_an_estimate_far(
    deviation: float, strange: int, error: float, usual: float
) -> None:
    track, shift = follow(Track(deviation, strange), error, usual)
    assert abs(shift) <= WEIGHT * max(usual, 3 * deviation) * (1 + 1e-9)
    assert shift * error >= 0
    assert 0 < track.deviation <= max(3 * deviation, usual)


def test_an_answer_that_tells_nothing_changes_nothing() -> None:
    speed = DeviceSpeed.of(PROFILE)
    assert speed.after(Seen()) == speed
    assert speed.prefill.deviation == START_ERROR


def test_the_network_is_learnt_from_the_first_answer_on() -> None:
    speed = NetworkSpeed()
    assert speed.network is None
    speed = speed.after(0.08)
    assert speed.added_s == 0.08
    for added_s in (0.1, 0.06) * 40:
        speed = speed.after(added_s)
    assert speed.network is not None
    assert speed.network.added_s == pytest.approx(0.08, abs=0.005)
    assert speed.network.deviation_s == pytest.approx(0.02, rel=0.3)
    assert speed.after(30.0).added_s == speed.added_s
    assert NetworkSpeed().after(-0.001).added_s == 0.0


def test_clocks_tell_how_a_profile_fares() -> None:
    prefill = PrefillClock(PROFILE, 100)
    assert prefill.ratio is None
    prefill.start(10.0)
    prefill.observe(163, 10.1)
    assert prefill.ratio is None, "too few tokens"
    prefill.observe(900, 10.0 + 1.5 * PROFILE.prefill_left_s(900, 100))
    assert prefill.ratio == pytest.approx(1.5)
    decode = DecodeClock(PROFILE.decode_s)
    for token in range(8):
        decode.made(token * 0.1)
    assert decode.ratio is None, "too few tokens"
    for token in range(8, 60):
        decode.made(token * 0.1)
    assert decode.ratio == pytest.approx(2.0, rel=1e-3)
    assert DecodeClock(None).ratio is None
