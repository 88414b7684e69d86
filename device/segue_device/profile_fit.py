"""From timed prefills to P(n) = a + b n + c n^2; pure, tested on made-up noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from segue_protocol.errors import InvalidRequest

# Which of a, b, c may be more than zero. Without b and c a token would cost nothing.
_SUPPORTS = ((1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))


@dataclass(frozen=True, slots=True)
class PrefillFit:
    """Coefficients of P(n), all >= 0, so that P grows with n; and how well they fit.

    ``error`` is the root mean square of (P(n) - measured) / measured.
    """

    base_s: float
    per_token_s: float
    per_token2_s: float
    error: float


def fit_prefill(seconds_by_tokens: Mapping[int, float]) -> PrefillFit:
    """The non-negative least squares of the relative deviations.

    Relative, because the noise of a timing grows with its length and a prefill
    of 16 tokens must count beside one of 4096. As many coefficients as lengths
    at most: one length gives only a slope. Raises InvalidRequest without a
    length, or with a length or a time that is not positive.
    """
    import numpy as np  # comes with an engine, and an engine was timed

    if not seconds_by_tokens:
        raise InvalidRequest("no prefill was timed; expected at least one length")
    for tokens, seconds in seconds_by_tokens.items():
        if tokens < 1 or not math.isfinite(seconds) or seconds <= 0:
            raise InvalidRequest(
                f"a prefill of {tokens} tokens took {seconds} s; expected positive numbers: "
                "measure again"
            )
    lengths = np.array(list(seconds_by_tokens), np.float64)
    seconds_taken = np.array(list(seconds_by_tokens.values()), np.float64)
    # Row i times the coefficients is P(n_i) / t_i, which should be 1. In units of the
    # longest prefill, so that the columns are of one size.
    longest = lengths.max()
    rows = np.stack([np.ones_like(lengths), lengths / longest, (lengths / longest) ** 2], axis=1)
    rows /= seconds_taken[:, None]
    best, least = np.zeros(3), math.inf
    for support in _SUPPORTS:
        columns = list(support)
        if len(columns) > len(lengths) or (len(lengths) == 1 and columns != [1]):
            continue
        found = np.linalg.lstsq(rows[:, columns], np.ones_like(lengths), rcond=None)[0]
        if (found < 0).any():
            continue  # the optimum of three signs lies on a smaller support
        coefficients = np.zeros(3)
        coefficients[columns] = found
        squares = float(np.mean((rows @ coefficients - 1) ** 2))
        if squares < least:
            best, least = coefficients, squares
    return PrefillFit(
        base_s=float(best[0]),
        per_token_s=float(best[1] / longest),
        per_token2_s=float(best[2] / longest**2),
        error=math.sqrt(least),
    )
