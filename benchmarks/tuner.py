"""The tuner's decisions against an exhaustive search, on random profiles.

    python -m benchmarks.tuner [--json]

The search plays an answer token by token (:mod:`benchmarks.tuner_timeline`) for
every N from 1 to its limit and every keep ratio, on the slowest device and the
earliest first token within the margin, and takes the least cloud slot time that
meets TTFT, pace, no stall and quality. `stalls` counts plays of the decision at
random within the margin; `stalled_beyond` is the share where speed and network
are drawn from normal distributions, which no margin covers, without extensions
of the credit. Nothing here is measured but the time of a decision.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from dataclasses import replace
from typing import Any

from benchmarks.tuner_timeline import ROUNDING_S, World, alone_first_token_s, late_by_n
from segue_protocol.timeline import DeviceProfile
from segue_protocol.tuning import (
    DEFAULT_PACE_S,
    CloudSpeed,
    Decision,
    Network,
    Place,
    Targets,
    TuningView,
    decide,
)

RATIOS = ((0.75, 0.99), (0.5, 0.97), (0.25, 0.9), (0.1, 0.7))
TIMED = 20


def random_view(rng: random.Random) -> TuningView:
    """A device from watch to workstation, a cloud from idle to overloaded."""
    prompt_tokens = _between(rng, 64, 6000)
    per_token_s = 1 / _between(rng, 60, 6000)
    cloud_ttft_s = rng.uniform(0.03, 0.3) + prompt_tokens * rng.uniform(2e-5, 5e-4)
    prefill_s = cloud_ttft_s * rng.uniform(0.3, 1.0)
    return TuningView(
        device=DeviceProfile(
            prefill_base_s=rng.uniform(0, 0.05),
            prefill_per_token_s=per_token_s,
            prefill_per_token2_s=per_token_s * rng.uniform(0, 2e-4),
            decode_s=rng.uniform(0.005, 0.12),
            handover_s=rng.uniform(0, 0.08),
            relative_error=rng.choice((0.0, rng.uniform(0.02, 0.2))),
        ),
        cloud=CloudSpeed(
            ttft_s=cloud_ttft_s,
            decode_s=rng.uniform(0.005, 0.06),
            prefill_s=prefill_s,
            list_s=rng.choice((None, cloud_ttft_s - prefill_s * rng.uniform(0, 0.6))),
        ),
        prompt_tokens=int(prompt_tokens),
        max_tokens=int(_between(rng, 16, 1024)),
        cached_tokens=rng.choice((0, 0, 0, int(prompt_tokens * rng.random()))),
        network=Network(rng.uniform(0.0, 0.3), rng.choice((0.0, rng.uniform(0.0, 0.03)))),
        targets=Targets(
            ttft_s=rng.choice((None, rng.uniform(0.1, 2.0))),
            tpot_s=rng.choice((None, rng.uniform(0.03, 0.15))),
            quality_floor=rng.choice((0.9, 0.95, 1.0)),
        ),
        quality=rng.choice(((), RATIOS)),
    )


def exhaustive_slot_s(view: TuningView) -> float:
    """The least slot time of all that can be decided."""
    device, targets = view.device, view.targets
    assert device is not None
    worst = _worst(view)
    fast_enough = targets.tpot_s is None or device.decode_s <= targets.tpot_s
    cloud_first_s = view.network.added_s + view.cloud.ttft_s
    if fast_enough:
        own_s = alone_first_token_s(view, worst)
        if own_s <= cloud_first_s or (targets.ttft_s is not None and own_s <= targets.ttft_s):
            return 0.0
    least = view.max_tokens
    if fast_enough:
        pace_s = max(targets.tpot_s or DEFAULT_PACE_S, device.decode_s, view.cloud.decode_s)
        ratios = [1.0, *(ratio for ratio, quality in view.quality if quality >= _floor(view))]
        for ratio in ratios:
            late_s = late_by_n(view, ratio, pace_s, worst)
            least = min(least, next(n for n, s in enumerate(late_s, 1) if s <= ROUNDING_S))
    return view.cloud.prefill_s + least * view.cloud.decode_s


def compare(profiles: int, seed: int) -> dict[str, Any]:
    """Regret, stalls and cost of the margin over random views."""
    rng = random.Random(seed)
    regrets, margins, places = [], [], dict.fromkeys(Place, 0)
    inside = outside = split = 0
    views = [random_view(rng) for _ in range(profiles)]
    taken_us = [_microseconds(view) for view in views]
    for view in views:
        decision = decide(view)
        places[decision.place] += 1
        regrets.append(_regret(decision.slot_s, exhaustive_slot_s(view)))
        if decision.place is not Place.SPLIT:
            continue
        split += 1
        inside += stalls(view, decision, _worst(view)) + stalls(view, decision, _within(view, rng))
        outside += stalls(view, decision, _beyond(view, rng))
        margins.append(decision.cloud_tokens / _without_margin(view))
    return {
        "profiles": profiles,
        "regret_mean": statistics.mean(regrets),
        "regret_max": max(regrets),
        "microseconds": statistics.median(taken_us),
        "microseconds_p99": sorted(taken_us)[int(0.99 * profiles)],
        "stalls": inside,
        "stalled_beyond": outside / max(1, split),
        "tokens_with_margin": statistics.mean(margins) if margins else 1.0,
        "places": {place.value: count for place, count in places.items()},
        "seed": seed,
    }


def stalls(view: TuningView, decision: Decision, world: World) -> bool:
    """Whether the device's first token is late in this play of a split answer."""
    late_s = late_by_n(view, decision.keep_ratio, decision.pace_s, world)
    return late_s[decision.cloud_tokens - 1] > ROUNDING_S


def _regret(slot_s: float, least_s: float) -> float:
    if slot_s == least_s:
        return 0.0
    return (slot_s - least_s) / least_s if least_s > 0 else math.inf


def _floor(view: TuningView) -> float:
    return view.targets.quality_floor


def _worst(view: TuningView) -> World:
    assert view.device is not None
    error, deviation_s = view.device.relative_error, view.network.deviation_s
    return World(
        slow=1 + view.margin_sigmas * error,
        later_s=-view.margin_sigmas * deviation_s,
        begun_more=int(error > 0 or deviation_s > 0),
    )


def _within(view: TuningView, rng: random.Random) -> World:
    worst = _worst(view)
    return World(rng.uniform(2 - worst.slow, worst.slow), worst.later_s * rng.uniform(-1, 1))


def _beyond(view: TuningView, rng: random.Random) -> World:
    assert view.device is not None
    slow = rng.gauss(1, view.device.relative_error)
    return World(max(0.1, slow), rng.gauss(0, view.network.deviation_s))


def _without_margin(view: TuningView) -> int:
    return max(1, decide(replace(view, margin_sigmas=0.0, may_be_alone=False)).cloud_tokens)


def _microseconds(view: TuningView) -> float:
    """The time of a decision: the shortest, since whatever else runs only adds to it."""
    taken_s = []
    for _ in range(TIMED):
        began_s = time.perf_counter()
        decide(view)
        taken_s.append(time.perf_counter() - began_s)
    return min(taken_s) * 1e6


def _between(rng: random.Random, low: float, high: float) -> float:
    """Log-uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--profiles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = compare(options.profiles, options.seed)
    if options.json:
        print(json.dumps(report))
        return
    places = ", ".join(f"{place} {count}" for place, count in report["places"].items())
    print(f"{report['profiles']} random profiles: {places}")
    print(f"  regret       {report['regret_mean']:.3%} mean, {report['regret_max']:.3%} at most")
    median_us, p99_us = report["microseconds"], report["microseconds_p99"]
    print(f"  a decision   {median_us:.1f} us, {p99_us:.1f} us at p99")
    print(f"  stalls       {report['stalls']} within the margin")
    print(f"               {report['stalled_beyond']:.1%} of split answers at normal jitter")
    print(f"  the margin   {report['tokens_with_margin']:.2f} times the tokens without it")


if __name__ == "__main__":
    main()
