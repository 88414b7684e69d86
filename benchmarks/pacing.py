"""Pacing policies on the same arrivals: recorded answers, and bursty synthetic ones with a hole.

    python -m benchmarks.pacing [--json]

Every policy sees the arrivals as they come, on a virtual clock. `segue` is the
SDK's own speed controller; `none` shows tokens as they arrive, `fixed` leaves
10 ms between two tokens, `backlog` empties its buffer over half a second.
Arrivals are synthetic, or recordings of split answers of an *emulated* phone
(``python -m demos.split --record FILE``).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segue_device.pacing import Pacer, PaceView, Pacing
from segue_device.timings import Timings, measure

RECORDINGS = Path(__file__).parent / "recordings"
INTERVAL_S = 0.05
STALL_S = 0.25
HOLES_S = (0.2, 0.5, 0.8)


@dataclass(frozen=True)
class Arrivals:
    """When each token of one answer was there, and how many the cloud made."""

    received_s: Sequence[float]
    cloud_tokens: int


def synthetic(seed: int, hole_s: float, length: int = 160) -> Arrivals:
    """A cloud that sends bursts, a hole at the hand-over, a device with jitter."""
    rng = random.Random(seed)
    cloud_tokens = rng.randint(12, 40)
    now, times = rng.uniform(0.1, 0.6), []
    while len(times) < cloud_tokens:
        burst = min(cloud_tokens - len(times), rng.randint(1, 10))
        times += [now] * burst
        now += rng.uniform(0.01, 0.12)
    # The device is ready when the cloud's tokens run out at the agreed pace, plus the hole.
    now = times[0] + INTERVAL_S * cloud_tokens + hole_s
    while len(times) < length:
        times.append(now)
        now += INTERVAL_S * max(0.4, rng.gauss(1.0, 0.15))
    return Arrivals(times, cloud_tokens)


def recorded() -> list[Arrivals]:
    """Every committed recording."""
    return [
        Arrivals(entry["received_s"], entry["cloud_tokens"])
        for path in sorted(RECORDINGS.glob("*.json"))
        for entry in json.loads(path.read_text())
    ]


def show_at_once(arrivals: Arrivals) -> list[float]:
    return list(arrivals.received_s)


def show_fixed(arrivals: Arrivals, delay_s: float = 0.01) -> list[float]:
    shown: list[float] = []
    for arrival in arrivals.received_s:
        shown.append(max(arrival, shown[-1] + delay_s) if shown else arrival)
    return shown


def show_backlog(arrivals: Arrivals, empty_s: float = 0.5) -> list[float]:
    shown: list[float] = []
    now = arrivals.received_s[0]
    for index, arrival in enumerate(arrivals.received_s):
        now = max(now, arrival)
        shown.append(now)
        backlog = sum(later <= now for later in arrivals.received_s[index + 1 :])
        now += empty_s / (backlog + 1) if backlog else 0.0
    return shown


def show_segue(arrivals: Arrivals) -> list[float]:
    """The SDK's step functions, driven by the times alone (no estimate of the hole)."""
    pacer, shown, now = Pacer(Pacing()), [], 0.0
    received = arrivals.received_s
    for index, arrival in enumerate(received):
        now = max(now, arrival)
        while True:
            arrived = sum(each <= now for each in received)
            following = next((each for each in received if each > now), None)
            view = PaceView(
                backlog_tokens=arrived - index,
                show_interval_s=INTERVAL_S,
                device_rate_tps=1 / INTERVAL_S,
                device_writes=arrived > arrivals.cloud_tokens,
                complete=following is None,
                expected_s=0.5 if arrived == arrivals.cloud_tokens else 0.0,
            )
            due = pacer.due_s(view, now)
            if due <= now:
                break
            now = due if following is None else min(due, following)
        pacer.shown(due, now)
        shown.append(now)
    return shown


POLICIES: dict[str, Callable[[Arrivals], list[float]]] = {
    "none": show_at_once,
    "fixed": show_fixed,
    "backlog": show_backlog,
    "segue": show_segue,
}


def judge(
    policy: Callable[[Arrivals], list[float]], answers: Sequence[Arrivals]
) -> dict[str, float]:
    """Figures of one policy over all answers; worst gap and stalls, medians of the rest."""
    timings = [_timings(policy(answer), answer) for answer in answers]
    return {
        "max_gap_s": max(each.max_gap_s for each in timings),
        "p99_gap_s": statistics.median(each.percentile_gap_s(99) for each in timings),
        "stalls_250ms_per_answer": statistics.mean(each.stalls(STALL_S) for each in timings),
        "burstiness": statistics.median(each.burstiness for each in timings),
        "added_ttft_s": max(each.shown_s[0] - each.received_s[0] for each in timings),
        "e2e_ratio": max(each.shown_s[-1] / each.received_s[-1] for each in timings),
    }


def compare(answers: Sequence[Arrivals]) -> dict[str, dict[str, float]]:
    """Every policy over the same answers."""
    return {name: judge(policy, answers) for name, policy in POLICIES.items()}


def _timings(shown: Sequence[float], arrivals: Arrivals) -> Timings:
    return measure(0.0, shown[-1], shown, arrivals.received_s, arrivals.cloud_tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--answers", type=int, default=60, help="synthetic answers a hole")
    options = parser.parse_args()
    cases: dict[str, list[Arrivals]] = {
        f"synthetic, hole {hole_s} s": [synthetic(seed, hole_s) for seed in range(options.answers)]
        for hole_s in HOLES_S
    }
    if recorded():
        cases["recorded (emulated phone)"] = recorded()
    everything = [answer for answers in cases.values() for answer in answers]
    report = {
        "policies": compare(everything),
        "cases": {case: {"policies": compare(answers)} for case, answers in cases.items()},
    }
    if options.json:
        print(json.dumps(report))
        return
    for case, answers in cases.items():
        print(f"\n{case}")
        for name, row in compare(answers).items():
            cells = "  ".join(f"{key} {value:.3f}" for key, value in row.items())
            print(f"  {name:<8} {cells}")


if __name__ == "__main__":
    main()
