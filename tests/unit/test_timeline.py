"""The hand-over's arithmetic against the conditions that define it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_protocol import timeline
from segue_protocol.errors import InvalidRequest
from segue_protocol.prefix import prefix_hash
from segue_protocol.timeline import DeviceProfile

PHONE = DeviceProfile(
    prefill_base_s=0.02,
    prefill_per_token_s=1 / 800,
    prefill_per_token2_s=1e-8,
    decode_s=0.06,
    handover_s=0.05,
)
LINEAR = replace(PHONE, prefill_per_token2_s=0.0)

seconds = st.floats(0, 100)
intervals = st.floats(1e-4, 1)


@given(left=seconds, tau=intervals, absorb=intervals, handover=st.floats(0, 2))
def test_n_star_is_the_smallest_number_that_is_stall_free(
    left: float, tau: float, absorb: float, handover: float
) -> None:
    given_s = {
        "prefill_left_s": left,
        "show_interval_s": tau,
        "absorb_per_token_s": absorb,
        "handover_s": handover,
    }
    tokens = timeline.n_star(**given_s)
    if tokens is None:
        assert not timeline.stall_free(cloud_tokens=timeline.MAX_CLOUD_TOKENS, **given_s)
    else:
        assert timeline.stall_free(cloud_tokens=tokens, **given_s)
        assert tokens == 1 or not timeline.stall_free(cloud_tokens=tokens - 1, **given_s)


@given(left=st.floats(0.01, 100), tau=intervals)
def test_a_device_that_absorbs_too_slowly_is_unbounded(left: float, tau: float) -> None:
    for absorb in (tau, 2 * tau):
        assert (
            timeline.n_star(
                prefill_left_s=left, show_interval_s=tau, absorb_per_token_s=absorb, handover_s=0
            )
            is None
        )


@given(left=seconds, tau=intervals, absorb=intervals, first=seconds, tokens=st.integers(1, 9999))
def test_ready_in_time_is_what_stall_free_says(
    left: float, tau: float, absorb: float, first: float, tokens: int
) -> None:
    ready = timeline.ready_time_s(
        first_token_s=first,
        prefill_left_s=left,
        cloud_tokens=tokens,
        absorb_per_token_s=absorb,
        handover_s=0.1,
    )
    slack_s = first + tokens * tau - ready
    if abs(slack_s) > 1e-6:
        assert (slack_s > 0) == timeline.stall_free(
            cloud_tokens=tokens,
            prefill_left_s=left,
            show_interval_s=tau,
            absorb_per_token_s=absorb,
            handover_s=0.1,
        )


def test_plain_limits_are_the_formulas_of_the_field_notes() -> None:
    # ceil((a + b r L + delta) / (tau - b)) and ceil((max(0, P(L) - t1) + delta) / (tau - b))
    waiting = timeline.n_star_waiting_for_list(LINEAR, kept_tokens=400, show_interval_s=0.05)
    assert waiting == 12  # (0.02 + 0.5 + 0.05) / 0.04875 = 11.69
    whole = timeline.n_star_without_refinement(
        LINEAR, prompt_tokens=1600, first_token_s=0.3, show_interval_s=0.05
    )
    assert whole == 37  # (2.02 - 0.3 + 0.05) / 0.04875 = 36.3
    past = timeline.n_star_without_refinement(
        LINEAR, prompt_tokens=100, first_token_s=9.0, show_interval_s=0.05
    )
    assert past == 2  # only the hand-over is left: 0.05 / 0.04875


def test_profile_survives_the_wire_and_checks_itself() -> None:
    PHONE.validate()
    assert DeviceProfile.from_wire(PHONE.to_wire()) == PHONE
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match="handover_s"):
            replace(PHONE, handover_s=bad).validate()
    with pytest.raises(InvalidRequest, match="decode_s"):
        replace(PHONE, decode_s=0.0).validate()


@given(tokens=st.integers(0, 10_000), done=st.integers(0, 10_000))
def test_prefill_left(tokens: int, done: int) -> None:
    left = PHONE.prefill_left_s(tokens, done)
    assert left == (0 if done >= tokens else pytest.approx(left))
    assert PHONE.prefill_left_s(tokens, 0) == PHONE.prefill_s(tokens)
    assert PHONE.prefill_s(0) == 0
    if done < tokens:
        assert PHONE.prefill_s(done) + left == pytest.approx(PHONE.prefill_s(tokens))


def test_absorbing_costs_the_slope_of_prefill() -> None:
    slope = PHONE.prefill_s(4001) - PHONE.prefill_s(4000)
    assert PHONE.absorb_per_token_s(4000) == pytest.approx(slope, rel=1e-4)


@given(
    buffered=st.integers(0, 50),
    remaining=st.integers(0, 200),
    tau_ms=st.integers(1, 100),
    decode_ms=st.integers(1, 100),
)
def test_buffer_never_drains_agrees_with_playing_it(
    buffered: int, remaining: int, tau_ms: int, decode_ms: int
) -> None:
    # Token k is shown at k tau; the first `buffered` are there, then one comes every d.
    late = [k for k in range(1, remaining + 1) if (k - buffered) * decode_ms > k * tau_ms]
    assert (not late) == timeline.buffer_never_drains(
        buffered_tokens=buffered,
        remaining_tokens=remaining,
        show_interval_s=tau_ms,
        decode_s=decode_ms,
    )


def test_prefix_hash_is_as_documented() -> None:
    expected = hashlib.sha256(bytes.fromhex("01000000 ffffffff 02000000 07000000")).digest()
    assert prefix_hash([1, 2**32 - 1], [7]) == expected
    assert prefix_hash([1], [2**32 - 1, 7]) != expected
    for bad in (-1, 2**32, 1.5):
        with pytest.raises(InvalidRequest, match="token id"):
            prefix_hash([bad], [])  # type: ignore[list-item]
