"""Figures of one answer, all on the device's clock, in seconds from the request.

TTFT, TPOT and ITL as the field defines them, over the tokens as shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True, slots=True)
class Timings:
    """What the user saw."""

    ttft_s: float | None
    # (E2EL - TTFT) / (tokens - 1)
    tpot_s: float | None
    e2e_s: float
    gaps_s: Sequence[float]
    # Around the takeover: what the user saw, and what lay between the two
    # tokens as they were made.
    takeover_gap_s: float | None
    takeover_gap_raw_s: float | None

    @property
    def max_gap_s(self) -> float:
        return max(self.gaps_s, default=0.0)

    def percentile_gap_s(self, percent: float) -> float:
        """A percentile of the gaps between shown tokens (ITL)."""
        return float(np.percentile(self.gaps_s, percent)) if self.gaps_s else 0.0

    def stalls(self, longer_than_s: float) -> int:
        """Gaps longer than a limit."""
        return sum(gap > longer_than_s for gap in self.gaps_s)


def measure(
    started_s: float,
    ended_s: float,
    shown_s: Sequence[float],
    received_s: Sequence[float],
    takeover_index: int | None,
) -> Timings:
    """Timings from the moments at which tokens were received (or made) and shown."""
    gaps_s = [later - earlier for earlier, later in pairwise(shown_s)]
    around: int | None = takeover_index
    if around is not None and not 0 < around < len(shown_s):
        around = None
    return Timings(
        ttft_s=shown_s[0] - started_s if shown_s else None,
        tpot_s=(shown_s[-1] - shown_s[0]) / len(gaps_s) if gaps_s else None,
        e2e_s=ended_s - started_s,
        gaps_s=gaps_s,
        takeover_gap_s=gaps_s[around - 1] if around is not None else None,
        takeover_gap_raw_s=(
            received_s[around] - received_s[around - 1] if around is not None else None
        ),
    )
