"""How the compute is divided between prefill and decode of one accelerator (semi-PD, 4.3).

With x and y the shares of prefill and decode, and lambda the share that the
prompts take which come in,

    TTFT(x) = a1 / (x - lambda) + b1        TPOT(y) = a2 / y + b2

fitted to what the last windows measured. A missed target raises its phase's
share by steps until the estimate meets it. Where it is at its most already, the
other phase gives way by one step if its own estimate allows that (our rule: where
shares are weights, nothing else is left). Both or none missed: nothing changes.
All functions are pure; shares are percentages, lambda and times as measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

FULL = 100
# Below it, a phase would look dead to those who wait for it.
LEAST = 10
STEP = 10
# Windows that are fitted: old ones had another load.
REMEMBERED = 8
# As close to overload, in percent, as x - lambda is allowed to be.
_HEADROOM = 1.0


@dataclass(frozen=True, slots=True)
class Targets:
    """Seconds; 0: none."""

    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True)
class Shares:
    """Percent of the compute, x and y; together they may exceed 100."""

    prefill: int
    decode: int


@dataclass(frozen=True, slots=True)
class Window:
    """What was measured while the shares were `shares`; None where there was no answer.

    `load` is lambda: percent of the whole compute that the prompts took.
    """

    shares: Shares
    load: float
    ttft_s: float | None
    tpot_s: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """``a u + b`` with a and b not below 0: a larger share never makes anything slower."""

    a: float
    b: float

    def at(self, u: float) -> float:
        return self.a * u + self.b


def step(windows: Sequence[Window], targets: Targets) -> Shares:
    """The shares for the next window. `windows` end with the newest; at least one."""
    now = windows[-1]
    late_ttft = _missed(now.ttft_s, targets.ttft_s)
    late_tpot = _missed(now.tpot_s, targets.tpot_s)
    if late_ttft == late_tpot:
        return now.shares
    recent = windows[-REMEMBERED:]
    prefill = fit(
        [(_wait(each.shares.prefill, each.load), each.ttft_s) for each in recent], now.ttft_s
    )
    decode = fit([(1 / each.shares.decode, each.tpot_s) for each in recent], now.tpot_s)

    def ttft_s(share: int) -> float:
        return prefill.at(_wait(share, now.load))

    def tpot_s(share: int) -> float:
        return decode.at(1 / share)

    x, y = now.shares.prefill, now.shares.decode
    if late_ttft:
        if x < FULL:
            return replace(now.shares, prefill=_raised(x, ttft_s, targets.ttft_s))
        return replace(now.shares, decode=_given_way(y, tpot_s, targets.tpot_s))
    if y < FULL:
        return replace(now.shares, decode=_raised(y, tpot_s, targets.tpot_s))
    return replace(now.shares, prefill=_given_way(x, ttft_s, targets.ttft_s))


def fit(points: Sequence[tuple[float, float | None]], newest: float | None) -> Line:
    """Least squares through (u, seconds); what explains `newest` alone goes through the origin.

    Where all were measured at one u, or noise says that a larger share makes
    things slower, everything is taken to scale with the share.
    """
    known = np.array([(u, seconds) for u, seconds in points if seconds is not None])
    if newest is None or not len(known):
        return Line(0.0, 0.0)
    u, seconds = known.T
    through_origin = Line(float(u @ seconds / (u @ u)), 0.0)
    if np.ptp(u) < 1e-9:
        return through_origin
    a, b = np.polyfit(u, seconds, 1)
    return Line(float(a), float(b)) if a > 0 and b >= 0 else through_origin


def _wait(share: float, load: float) -> float:
    return 1 / max(share - load, _HEADROOM)


def _missed(seconds: float | None, target_s: float) -> bool:
    return seconds is not None and target_s > 0 and seconds > target_s


def _raised(share: int, estimate_s: Callable[[int], float], target_s: float) -> int:
    """The least of the next steps whose estimate meets the target, else the most there is."""
    while share < FULL:
        share = min(share + STEP, FULL)
        if estimate_s(share) <= target_s:
            break
    return share


def _given_way(share: int, estimate_s: Callable[[int], float], target_s: float) -> int:
    """One step less, if the target is met then as well."""
    less = share - STEP
    if less < LEAST or (target_s > 0 and estimate_s(less) > target_s):
        return share
    return less
