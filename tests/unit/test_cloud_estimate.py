"""What the gateway learns of its own speed."""

from __future__ import annotations

import pytest

from segue_cloud.tuner.advice import CloudEstimate


def _learnt(prompt_tokens: int, prefill_s: float, cached_tokens: int) -> CloudEstimate:
    estimate = CloudEstimate()
    for _ in range(50):
        estimate.observe(prompt_tokens, 0.1, prefill_s, cached_tokens)
    return estimate


def test_time_per_token_is_that_of_computed_tokens() -> None:
    whole, half = _learnt(1000, 2.0, 0), _learnt(1000, 1.0, 500)
    assert whole.per_token_s == pytest.approx(2e-3, rel=1e-3)
    assert half.per_token_s == pytest.approx(2e-3, rel=1e-3)
    assert whole.speed(2000).ttft_s == pytest.approx(4.1, rel=1e-3)


def test_a_prompt_that_was_nearly_all_cached_teaches_the_waiting_only() -> None:
    estimate = _learnt(1000, 0.05, 999)
    assert estimate.per_token_s == CloudEstimate().per_token_s
    assert estimate.base_s == pytest.approx(0.1, rel=1e-3)


def test_the_time_of_a_decoded_token_is_learnt_from_answers_that_are_long_enough() -> None:
    estimate = CloudEstimate()
    estimate.observe_decode(3, 90.0)
    assert estimate.decode_s == CloudEstimate().decode_s
    for _ in range(50):
        estimate.observe_decode(20, 0.8)
    assert estimate.speed(100).decode_s == pytest.approx(0.04, rel=1e-3)
