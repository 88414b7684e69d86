"""P(n) from timings: exact where it can be, close under noise, never negative."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_device.profile_fit import PrefillFit, fit_prefill
from segue_protocol.errors import InvalidRequest

LENGTHS = [32, 64, 128, 256, 512, 1024, 2048]


def p(fit: PrefillFit, tokens: float) -> float:
    return fit.base_s + fit.per_token_s * tokens + fit.per_token2_s * tokens**2


@pytest.mark.parametrize(
    "truth",
    [(0.02, 1 / 800, 1e-7), (0.0, 1 / 800, 0.0), (0.1, 0.0, 1e-6), (0.0, 1 / 90, 1e-8)],
)
def test_finds_the_coefficients_of_exact_timings(truth: tuple[float, float, float]) -> None:
    a, b, c = truth
    fit = fit_prefill({n: a + b * n + c * n * n for n in LENGTHS})
    assert (fit.base_s, fit.per_token_s, fit.per_token2_s) == pytest.approx(truth, abs=1e-9)
    assert fit.error < 1e-6


@given(
    a=st.floats(0, 0.5),
    b=st.floats(1e-5, 0.02),
    c=st.floats(0, 1e-6),
    noise=st.floats(0, 0.05),
    seed=st.integers(0, 2**32 - 1),
)
def test_under_noise_it_stays_close_and_grows(
    a: float, b: float, c: float, noise: float, seed: int
) -> None:
    factors = 1 + np.random.default_rng(seed).uniform(-noise, noise, len(LENGTHS))
    truth = {n: a + b * n + c * n * n for n in LENGTHS}
    fit = fit_prefill({n: truth[n] * factors[i] for i, n in enumerate(LENGTHS)})
    assert min(fit.base_s, fit.per_token_s, fit.per_token2_s) >= 0
    assert fit.per_token_s + fit.per_token2_s > 0
    # It fits the noisy times no worse than the truth does.
    assert fit.error <= 1.001 * float(np.sqrt(np.mean((1 / factors - 1) ** 2))) + 1e-9
    predicted = [p(fit, n) for n in range(1, 4097, 15)]
    assert predicted == sorted(predicted)
    for n in LENGTHS:
        assert p(fit, n) == pytest.approx(truth[n], rel=4 * noise + 1e-6)


def test_it_is_the_best_of_a_fine_grid() -> None:
    """The least squares over non-negative coefficients, where the free optimum has b < 0."""
    taken = {10: 1.0, 20: 0.5, 30: 1.2, 40: 2.6}
    fit = fit_prefill(taken)

    def error(a: float, b: float, c: float) -> float:
        ratios = [(a + b * n + c * n * n) / t - 1 for n, t in taken.items()]
        return float(np.sqrt(np.mean(np.square(ratios))))

    best = min(
        error(a, b, c)
        for a in np.linspace(0, 2, 81)
        for b in np.linspace(0, 0.1, 41)
        for c in np.linspace(0, 0.002, 81)
    )
    assert fit.error == pytest.approx(error(fit.base_s, fit.per_token_s, fit.per_token2_s))
    assert fit.error <= best


def test_times_that_shrink_still_cost_something_a_token() -> None:
    fit = fit_prefill({32: 0.4, 64: 0.3, 128: 0.2})
    assert fit.per_token_s + fit.per_token2_s > 0
    assert fit.error > 0.1


def test_no_more_coefficients_than_lengths() -> None:
    one = fit_prefill({100: 0.5})
    assert (one.base_s, one.per_token2_s) == (0, 0)
    assert one.per_token_s == pytest.approx(0.005)
    two = fit_prefill({100: 0.5, 200: 0.9})
    assert p(two, 100) == pytest.approx(0.5)
    assert p(two, 200) == pytest.approx(0.9)


@pytest.mark.parametrize("taken", [{}, {0: 1.0}, {8: 0.0}, {8: float("nan")}, {8: -1.0}])
def test_refuses_what_is_no_timing(taken: dict[int, float]) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        fit_prefill(taken)
