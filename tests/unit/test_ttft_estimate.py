"""What the gateway learns of its own time to first token."""

from __future__ import annotations

import pytest

from segue_cloud.tuner.advice import TtftEstimate


def _learnt(prompt_tokens: int, prefill_s: float, cached_tokens: int) -> TtftEstimate:
    estimate = TtftEstimate()
    for _ in range(50):
        estimate.observe(prompt_tokens, 0.1, prefill_s, cached_tokens)
    return estimate


def test_time_per_token_is_that_of_computed_tokens() -> None:
    whole, half = _learnt(1000, 2.0, 0), _learnt(1000, 1.0, 500)
    assert whole.per_token_s == pytest.approx(2e-3, rel=1e-3)
    assert half.per_token_s == pytest.approx(2e-3, rel=1e-3)
    assert whole.seconds(2000) == pytest.approx(4.1, rel=1e-3)


def test_a_prompt_that_was_nearly_all_cached_teaches_the_waiting_only() -> None:
    estimate = _learnt(1000, 0.05, 999)
    assert estimate.per_token_s == TtftEstimate().per_token_s
    assert estimate.base_s == pytest.approx(0.1, rel=1e-3)
