"""From timed steps to costs: non-negative least squares; pure, tested on made-up times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from segue_cloud.profiles.base import DecodeCost, Fit, PrefillCost
from segue_protocol.errors import InvalidRequest

# The batch of a sample: prompt lengths, or contexts; and the seconds it took.
Samples = Mapping[tuple[int, ...], float]


def fit_prefill(samples: Samples) -> tuple[PrefillCost, Fit]:
    """Fit seconds by prompt lengths. Raises InvalidRequest for what gives no fit."""
    columns = [(1.0, sum(each), sum(n * n for n in each)) for each in samples]
    (base_s, per_token_s, per_token2_s), fit = _fit(columns, list(samples.values()), "prefill")
    return PrefillCost(base_s, per_token_s, per_token2_s), fit


def fit_decode(samples: Samples) -> tuple[DecodeCost, Fit]:
    """Fit seconds by contexts. Raises InvalidRequest for what gives no fit."""
    columns = [(1.0, sum(each), len(each)) for each in samples]
    (base_s, per_token_s, per_request_s), fit = _fit(columns, list(samples.values()), "decode")
    return DecodeCost(base_s, per_token_s, per_request_s), fit


def _fit(
    columns: Sequence[tuple[float, ...]], seconds: Sequence[float], what: str
) -> tuple[list[float], Fit]:
    """Least squares of the relative deviations, all coefficients >= 0.

    Relative, because the noise of a timing grows with it and a short step must
    count beside a long one. Three coefficients are few enough to try every
    choice of those that are not zero: the best feasible one is the optimum.
    """
    if len(seconds) < 3:
        raise InvalidRequest(f"{len(seconds)} {what} samples cannot give 3 coefficients")
    if not all(math.isfinite(each) and each > 0 for each in seconds):
        raise InvalidRequest(f"a {what} sample took no positive time; measure again")
    matrix: npt.NDArray[np.float64] = np.array(columns, np.float64)
    scale = matrix.max(axis=0)  # so that the columns are of one size
    rows = matrix / scale / np.array(seconds)[:, None]
    best, least = np.zeros(3), math.inf
    for size in (1, 2, 3):
        for support in combinations(range(3), size):
            chosen = list(support)
            found = np.linalg.lstsq(rows[:, chosen], np.ones(len(rows)), rcond=None)[0]
            if (found < 0).any():
                continue
            coefficients = np.zeros(3)
            coefficients[chosen] = found
            squares = float(np.mean((rows @ coefficients - 1) ** 2))
            if squares < least:
                best, least = coefficients, squares
    deviations = np.abs(rows @ best - 1)
    fit = Fit(
        samples=len(seconds),
        relative_rms=math.sqrt(least),
        relative_max=float(deviations.max()),
    )
    return [float(each) for each in best / scale], fit
