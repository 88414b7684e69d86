"""Figures of one answer, all on the device's clock, in seconds from the request.

TTFT, TPOT and ITL as the field defines them, over the tokens as shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WINDOW_S = 0.25


@dataclass(frozen=True, slots=True)
class Timings:
    """What the user saw."""

    ttft_s: float | None
    # (E2EL - TTFT) / (tokens - 1)
    tpot_s: float | None
    e2e_s: float
    # When each token was received (or made), and when it was shown.
    received_s: Sequence[float]
    shown_s: Sequence[float]
    # Around the takeover: what the user saw, and what lay between the two
    # tokens as they were made.
    takeover_gap_s: float | None
    takeover_gap_raw_s: float | None

    @property
    def gaps_s(self) -> Sequence[float]:
        """Inter-token latencies as shown."""
        return [later - earlier for earlier, later in pairwise(self.shown_s)]

    @property
    def max_gap_s(self) -> float:
        return max(self.gaps_s, default=0.0)

    def percentile_gap_s(self, percent: float) -> float:
        """A percentile (0 to 100) of the gaps between shown tokens (ITL), interpolated."""
        gaps_s = sorted(self.gaps_s)
        if not gaps_s:
            return 0.0
        place = (len(gaps_s) - 1) * percent / 100
        below, above = gaps_s[math.floor(place)], gaps_s[math.ceil(place)]
        return below + (above - below) * (place - math.floor(place))

    def stalls(self, longer_than_s: float) -> int:
        """Gaps longer than a limit."""
        return sum(gap > longer_than_s for gap in self.gaps_s)

    @property
    def burstiness(self) -> float:
        """Coefficient of variation of the tokens shown per 250 ms; 0 is perfectly even."""
        if len(self.shown_s) < 2:
            return 0.0
        first_s = self.shown_s[0]
        windows = max(1, math.ceil((self.shown_s[-1] - first_s) / WINDOW_S))
        counts = [0] * windows
        for moment_s in self.shown_s:  # the last window has both its ends
            counts[min(int((moment_s - first_s) / WINDOW_S), windows - 1)] += 1
        mean = len(self.shown_s) / windows
        return math.sqrt(sum((count - mean) ** 2 for count in counts) / windows) / mean


def measure(
    started_s: float,
    ended_s: float,
    shown_s: Sequence[float],
    received_s: Sequence[float],
    takeover_index: int | None,
) -> Timings:
    """Timings from the moments at which tokens were received (or made) and shown."""
    around: int | None = takeover_index
    if around is not None and not 0 < around < len(shown_s):
        around = None
    return Timings(
        ttft_s=shown_s[0] - started_s if shown_s else None,
        tpot_s=(shown_s[-1] - shown_s[0]) / (len(shown_s) - 1) if len(shown_s) > 1 else None,
        e2e_s=ended_s - started_s,
        received_s=[moment - started_s for moment in received_s],
        shown_s=[moment - started_s for moment in shown_s],
        takeover_gap_s=shown_s[around] - shown_s[around - 1] if around is not None else None,
        takeover_gap_raw_s=(
            received_s[around] - received_s[around - 1] if around is not None else None
        ),
    )
