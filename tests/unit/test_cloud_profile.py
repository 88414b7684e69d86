"""Profiles of the cloud: fitted from samples, stored, and read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segue_cloud.profiles.base import CloudProfile, DecodeCost, Fit, PrefillCost
from segue_cloud.profiles.fit import fit_decode, fit_prefill
from segue_cloud.profiles.measure import DECODES, PREFILLS
from segue_cloud.profiles.published import PUBLISHED, find_profile
from segue_protocol.errors import InvalidRequest

PREFILL = PrefillCost(3e-3, 1e-4, 5e-8)
DECODE = DecodeCost(2e-3, 9e-7, 1.4e-4)
PROFILE = CloudProfile(
    name="tiny",
    source="made up",
    prefill=PREFILL,
    decode=(DECODE,),
    machine={"processor": "none"},
    prefill_fit=Fit(12, 0.01, 0.02),
    decode_fit=Fit(24, 0.03, 0.04),
)


def test_exact_times_give_the_coefficients_back() -> None:
    prefill, fit = fit_prefill({each: PROFILE.prefill_s(each) for each in PREFILLS})
    assert (prefill.base_s, prefill.per_token_s, prefill.per_token2_s) == pytest.approx(
        (3e-3, 1e-4, 5e-8)
    )
    assert fit.samples == len(PREFILLS)
    assert fit.relative_max < 1e-9
    decode, fit = fit_decode({each: DECODE.seconds(each) for each in DECODES})
    assert (decode.base_s, decode.per_context_token_s, decode.per_request_s) == pytest.approx(
        (2e-3, 9e-7, 1.4e-4)
    )
    assert fit.relative_rms < 1e-9


def test_noise_is_reported_and_no_cost_turns_negative() -> None:
    """Times that fall with the square: the best square is none at all."""
    falling = {(n,): 1e-4 * n - 1e-9 * n * n for n in (16, 64, 256, 1024, 2048)}
    cost, fit = fit_prefill(falling)
    assert cost.per_token2_s == 0
    assert cost.base_s >= 0
    assert 0 < fit.relative_rms <= fit.relative_max < 0.02
    deviations = [abs(cost.seconds([(0, each[0])]) / s - 1) for each, s in falling.items()]
    assert fit.relative_max == pytest.approx(max(deviations))


@pytest.mark.parametrize("samples", [{}, {(1,): 1.0, (2,): 2.0}, {(1,): 1.0, (2,): 0.0, (3,): 1.0}])
def test_what_gives_no_fit_is_refused(samples: dict[tuple[int, ...], float]) -> None:
    with pytest.raises(InvalidRequest, match="sample"):
        fit_decode(samples)


def test_chunks_of_a_prompt_cost_the_prompt_and_a_base_each() -> None:
    whole = PREFILL.seconds([(0, 1000)])
    chunks = PREFILL.seconds([(0, 600)]) + PREFILL.seconds([(600, 1000)])
    assert chunks == pytest.approx(whole + PREFILL.base_s)


def test_the_published_coefficients() -> None:
    """In milliseconds, as FIELD 1 quotes them from DistServe's simulator."""
    small = PUBLISHED["a100-80g-opt-13b-tp1"]
    assert small.prefill_s([1000, 500]) == pytest.approx(
        (18.10 + 0.1019 * 1500 + 7.12e-6 * 1_250_000) / 1e3
    )
    assert small.decode_s([400] * 94) == pytest.approx(
        (19.93 + 6.27e-4 * 400 * 94 + 0.0385 * 94) / 1e3
    )
    assert small.decode_s([400] * 95) == pytest.approx(
        (7.17 + 5.80e-4 * 400 * 95 + 0.158 * 95) / 1e3
    )
    large = PUBLISHED["a100-80g-opt-66b-tp4"]
    assert large.prefill_s([1000]) == pytest.approx((29.44 + 151.4 + 8.32) / 1e3)
    assert large.decode_s([1000]) == pytest.approx((30.76 + 0.452 + 0.0633) / 1e3)
    for name, profile in PUBLISHED.items():
        profile.validate()
        assert "2401.09670" in find_profile(name).source


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    PROFILE.save(tmp_path / "profile.json")
    assert find_profile(str(tmp_path / "profile.json")) == PROFILE
    with pytest.raises(InvalidRequest, match="cannot write"):
        PROFILE.save(tmp_path / "nowhere" / "profile.json")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": 2}, "format 1"),
        ({"colour": "red"}, "colour"),
        ({"prefill": 3}, "prefill"),
        ({"prefill": {"base_s": 1.0}}, "per_token_s"),
        ({"prefill": {"base_s": -1.0, "per_token_s": 1.0, "per_token2_s": 0.0}}, "base_s is -1"),
        ({"prefill": {"base_s": 0.0, "per_token_s": 0.0, "per_token2_s": 0.0}}, "no time"),
        ({"prefill": {"base_s": "a", "per_token_s": 0.0, "per_token2_s": 0.0}}, "base_s"),
        ({"decode": []}, "no decode cost"),
        ({"decode": {}}, "expected a list"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({**PROFILE.to_json(), **change}))
    with pytest.raises(InvalidRequest, match=named):
        CloudProfile.load(path)


def test_a_profile_that_is_not_there_is_named() -> None:
    for name in ("", "a100"):
        with pytest.raises(InvalidRequest, match="a100-80g-opt-13b-tp1"):
            find_profile(name)
