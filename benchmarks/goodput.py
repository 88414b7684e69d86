"""Goodput: the highest rate at which enough requests meet their targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.split_requests import Seen

ENOUGH = 0.9
MOST_RPS = 512.0


@dataclass(frozen=True)
class Target:
    """What a request must meet (seconds): its first token, and its mean time per later one."""

    ttft_s: float
    tpot_s: float

    def attained(self, seen: Sequence[Seen]) -> float:
        """Share of the requests that came to their end within both; failures count as missed."""
        met = (
            each.error is None and each.ttft_s <= self.ttft_s and each.tpot_s <= self.tpot_s
            for each in seen
        )
        return sum(met) / len(seen)

    def met_by(self, seen: Sequence[Seen]) -> bool:
        """Whether enough of them attained it."""
        return self.attained(seen) >= ENOUGH


def highest_rate(meets: Callable[[float], bool], *, start_rps: float, steps: int) -> float:
    """By doubling from `start_rps` as long as it is met, then `steps` bisections.

    What is found is met; what lies a 2^-`steps` part of it higher is not. At
    :data:`MOST_RPS` the search ends.
    """
    low_rps, high_rps = 0.0, start_rps
    while high_rps <= MOST_RPS and meets(high_rps):
        low_rps, high_rps = high_rps, 2 * high_rps
    for _ in range(steps):
        middle_rps = (low_rps + high_rps) / 2
        if meets(middle_rps):
            low_rps = middle_rps
        else:
            high_rps = middle_rps
    return low_rps
