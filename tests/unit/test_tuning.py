"""The tuner: the least slot time that stalls nobody, and the constraint that binds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks import tuner
from benchmarks.tuner_timeline import ROUNDING_S, World, late_by_n
from segue_protocol.timeline import DeviceProfile, n_star_without_refinement
from segue_protocol.tuning import (
    Binding,
    CloudSpeed,
    Decision,
    Network,
    Place,
    Targets,
    TuningView,
    decide,
    explain,
)

PHONE = DeviceProfile(0.02, 1 / 800, 1e-8, 0.05, 0.02)
VIEW = TuningView(
    device=PHONE,
    cloud=CloudSpeed(ttft_s=0.2, decode_s=0.02, prefill_s=0.15),
    prompt_tokens=1000,
    max_tokens=300,
    network=Network(added_s=0.05),
)
TABLE = ((0.75, 0.99), (0.5, 0.96), (0.25, 0.9))


@st.composite
def views(draw: st.DrawFn) -> TuningView:
    """Answers to which a cloud belongs: it was asked already."""
    per_token_s = draw(st.floats(1e-4, 2e-2))
    ttft_s = draw(st.floats(0.02, 2.0))
    prompt_tokens = draw(st.integers(1, 600))
    return TuningView(
        device=DeviceProfile(
            prefill_base_s=draw(st.floats(0, 0.05)),
            prefill_per_token_s=per_token_s,
            prefill_per_token2_s=per_token_s * draw(st.floats(0, 1e-3)),
            decode_s=draw(st.floats(0.001, 0.2)),
            handover_s=draw(st.floats(0, 0.2)),
            relative_error=draw(st.sampled_from((0.0, 0.05, 0.2))),
        ),
        cloud=CloudSpeed(
            ttft_s=ttft_s,
            decode_s=draw(st.floats(1e-3, 0.1)),
            prefill_s=ttft_s / 2,
            list_s=draw(st.sampled_from((None, ttft_s / 2))),
        ),
        prompt_tokens=prompt_tokens,
        max_tokens=draw(st.integers(1, 200)),
        cached_tokens=draw(st.integers(0, prompt_tokens - 1)),
        network=Network(draw(st.floats(0, 0.5)), draw(st.sampled_from((0.0, 0.02)))),
        targets=Targets(
            tpot_s=draw(st.sampled_from((None, 0.03, 0.1))),
            quality_floor=draw(st.sampled_from((0.0, 0.95, 1.0))),
        ),
        quality=draw(st.sampled_from(((), TABLE))),
        may_be_alone=False,
    )


def _stalls(view: TuningView, decision: Decision, cloud_tokens: int, world: World) -> bool:
    late_s = late_by_n(view, decision.keep_ratio, decision.pace_s, world)
    return late_s[cloud_tokens - 1] > ROUNDING_S


# ---- what holds for every answer


@settings(deadline=None)
@given(views())
def test_without_jitter_n_is_the_smallest_number_that_does_not_stall(view: TuningView) -> None:
    view = replace(view, margin_sigmas=0.0)
    decision = decide(view)
    assert not _stalls(view, decision, decision.cloud_tokens, World())
    assert decision.first_credit == decision.cloud_tokens
    if decision.place is Place.SPLIT and decision.cloud_tokens > 1:
        assert _stalls(view, decision, decision.cloud_tokens - 1, World(slow=1 + 1e-7))


@settings(deadline=None)
@given(views(), st.floats(-1, 1), st.floats(-1, 1))
def test_within_the_margin_nothing_stalls(view: TuningView, slower: float, later: float) -> None:
    assert view.device is not None
    decision = decide(view)
    band = min(0.5, view.margin_sigmas * view.device.relative_error)
    world = World(1 + slower * band, later * view.margin_sigmas * view.network.deviation_s)
    assert not _stalls(view, decision, decision.cloud_tokens, world)
    assert 1 <= decision.first_credit <= decision.cloud_tokens <= view.max_tokens


@settings(deadline=None)
@given(views(), st.floats(1, 5))
def test_a_slower_device_never_needs_fewer_tokens(view: TuningView, times: float) -> None:
    view = replace(view, quality=(), targets=Targets(tpot_s=0.3))
    device = view.device
    assert device is not None
    slower = DeviceProfile(
        prefill_base_s=device.prefill_base_s * times,
        prefill_per_token_s=device.prefill_per_token_s * times,
        prefill_per_token2_s=device.prefill_per_token2_s * times,
        decode_s=device.decode_s,
        handover_s=device.handover_s * times,
        relative_error=device.relative_error,
    )
    assert decide(replace(view, device=slower)).cloud_tokens >= decide(view).cloud_tokens


@settings(deadline=None)
@given(views(), st.integers(1, 2000))
def test_a_longer_prompt_never_needs_fewer_tokens(view: TuningView, more: int) -> None:
    view = replace(view, quality=())
    longer = replace(view, prompt_tokens=view.prompt_tokens + more)
    assert decide(longer).cloud_tokens >= decide(view).cloud_tokens


@settings(deadline=None)
@given(views(), st.floats(1, 5))
def test_a_slower_pace_never_needs_more_tokens(view: TuningView, times: float) -> None:
    assert view.device is not None
    assume(view.device.decode_s <= 0.05)
    quick, slow = (replace(view, targets=Targets(tpot_s=0.05 * n)) for n in (1, times))
    assert decide(slow).cloud_tokens <= decide(quick).cloud_tokens


@settings(deadline=None)
@given(views(), st.floats(0.5, 1))
def test_a_higher_quality_floor_never_needs_fewer_tokens(view: TuningView, floor: float) -> None:
    view = replace(view, quality=TABLE)
    low, high = (
        decide(replace(view, targets=replace(view.targets, quality_floor=each)))
        for each in (0.5, floor)
    )
    assert low.cloud_tokens <= high.cloud_tokens
    assert dict([*TABLE, (1.0, 1.0)])[high.keep_ratio] >= floor


@settings(deadline=None)
@given(views(), st.floats(0, 0.2))
def test_an_unsure_device_costs_tokens_and_begins_with_fewer(
    view: TuningView, error: float
) -> None:
    assert view.device is not None
    sure = replace(view, quality=(), device=replace(view.device, relative_error=0.0))
    unsure = replace(sure, device=replace(view.device, relative_error=error))
    assert decide(unsure).cloud_tokens >= decide(sure).cloud_tokens


# ---- single cases


def test_it_is_the_formula_of_the_hand_over() -> None:
    linear = replace(PHONE, prefill_per_token2_s=0.0)
    decision = decide(replace(VIEW, device=linear))
    expected = n_star_without_refinement(
        linear, prompt_tokens=1000, first_token_s=0.25, show_interval_s=0.05
    )
    assert decision.cloud_tokens == expected == 22  # (0.02 + 1.25 - 0.25 + 0.02) / 0.04875
    assert decision.slot_s == pytest.approx(0.15 + 22 * 0.02)


def test_the_first_credit_lasts_until_an_extension_can_be_there() -> None:
    unsure = replace(
        VIEW,
        device=replace(PHONE, relative_error=0.2),
        network=Network(added_s=0.04),
        prompt_tokens=300,
    )
    decision = decide(unsure)
    # The quickest device needs 1 token; an extension takes 0.04 s + 0.1 s.
    assert decision.first_credit == 3 < decision.cloud_tokens


def test_a_list_that_comes_when_the_device_is_past_everything_cuts_nothing() -> None:
    late = replace(VIEW, quality=TABLE, targets=Targets(quality_floor=0.5), may_be_alone=False)
    quick = replace(late, device=replace(PHONE, prefill_per_token_s=1e-4))
    assert decide(late).keep_ratio == 0.25
    assert decide(quick).keep_ratio == 1.0


@pytest.mark.parametrize(
    ("prompt_tokens", "error", "cloud_tokens"),
    [
        # 6 tokens are begun, 12 of the other 24 kept: (0.18 - 0.055) / 0.0425 = 2.9
        (30, 0.0, 3),
        # 13 of the other 25: (0.19 - 0.055) / 0.0425 = 3.2
        (31, 0.0, 4),
        # The list may find 7 begun; 12 of the other 23 make 19 of them.
        (30, 0.001, 4),
    ],
)
def test_whole_tokens_are_begun_and_kept(
    prompt_tokens: int, error: float, cloud_tokens: int
) -> None:
    view = TuningView(
        device=DeviceProfile(0.0, 0.01, 0.0, 0.05, 0.0, error),
        cloud=CloudSpeed(ttft_s=0.055, decode_s=0.001),
        prompt_tokens=prompt_tokens,
        max_tokens=100,
        targets=Targets(tpot_s=0.0525, quality_floor=0.9),
        quality=((0.5, 0.96),),
    )
    assert decide(view).cloud_tokens == cloud_tokens


@given(
    st.lists(st.sampled_from((0.0, 1e-320, 1e-3, 1e150, 1.7e308)), min_size=6, max_size=6),
    st.integers(1, 10**6),
)
def test_absurd_profiles_give_a_decision(numbers: list[float], prompt_tokens: int) -> None:
    base, per_token, per_token2, decode, handover, error = numbers
    device = DeviceProfile(base, per_token, per_token2, decode or 1.0, handover, error)
    view = replace(VIEW, device=device, prompt_tokens=prompt_tokens, quality=TABLE)
    view = replace(view, targets=Targets(quality_floor=0.5), may_be_alone=False)
    decision = decide(view)
    assert 1 <= decision.first_credit <= decision.cloud_tokens <= view.max_tokens
    assert explain(view, decision)


CASES = {
    "meets the target alone": (
        replace(VIEW, prompt_tokens=100, targets=Targets(ttft_s=0.3)),
        (Place.DEVICE, Binding.NOTHING, ("answers alone", "195 ms", "target of 300 ms")),
    ),
    "is quicker than the cloud": (
        replace(VIEW, prompt_tokens=100),
        (Place.DEVICE, Binding.NOTHING, ("195 ms", "no later than the cloud's", "250 ms")),
    ),
    "only the first token": (
        replace(VIEW, prompt_tokens=190, targets=Targets(ttft_s=0.26)),
        (Place.SPLIT, Binding.TTFT, ("1 token", "TTFT alone", "250 ms against 308 ms")),
    ),
    "the device's prefill": (
        VIEW,
        (Place.SPLIT, Binding.DEVICE_PREFILL, ("makes 22 tokens", "1.03 s", "every 50 ms")),
    ),
    "the quality floor": (
        replace(VIEW, quality=TABLE, targets=Targets(quality_floor=0.95)),
        (Place.SPLIT, Binding.QUALITY, ("50% of the prompt", "floor of 0.95")),
    ),
    "the device decodes too slowly": (
        replace(VIEW, targets=Targets(tpot_s=0.04)),
        (Place.CLOUD, Binding.DEVICE_DECODE, ("whole answer", "takes 50 ms", "target of 40 ms")),
    ),
    "shown faster than absorbed": (
        replace(VIEW, device=replace(PHONE, prefill_per_token_s=0.06)),
        (Place.CLOUD, Binding.PACE, ("never catches up", "60 ms to absorb", "every 50 ms")),
    ),
    "over before the device is ready": (
        replace(VIEW, max_tokens=15),
        (Place.CLOUD, Binding.LENGTH, ("15 tokens at most", "before the device is ready")),
    ),
    "no device": (
        replace(VIEW, device=None),
        (Place.CLOUD, Binding.NO_DEVICE, ("whole answer", "no device model")),
    ),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_binding_constraint_is_told_in_words(case: str) -> None:
    view, (place, binding, words) = CASES[case]
    decision = decide(view)
    assert (decision.place, decision.binding) == (place, binding)
    told = explain(view, decision)
    assert [word for word in words if word not in told] == [], told
    assert "Margin" not in told
    if place is Place.CLOUD:
        assert decision.cloud_tokens == view.max_tokens


def test_every_constraint_has_a_case() -> None:
    assert {binding for _, (_, binding, _) in CASES.values()} == set(Binding)


def test_margin_and_missed_target_are_told() -> None:
    unsure = replace(
        VIEW,
        device=replace(PHONE, relative_error=0.1),
        network=Network(0.05, 0.005),
        targets=Targets(ttft_s=0.2),
    )
    told = explain(unsure, decide(unsure))
    assert "up to 20% slower" in told
    assert "up to 10 ms off" in told
    assert "target of 200 ms cannot be met" in told


def test_the_report_of_the_tuner_benchmark() -> None:
    report = json.loads(json.dumps(tuner.compare(profiles=60, seed=5)))
    assert {"profiles", "regret_mean", "regret_max", "microseconds", "stalls"} < set(report)
    assert report["regret_mean"] <= 0.01
    assert report["stalls"] == 0
    assert min(report["places"].values()) > 0
