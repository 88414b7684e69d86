"""P/D, unified or aggregated: which serves more requests within their targets?

    python -m benchmarks.modes [--json]

The same hardware three ways: two accelerators as one prefill and one decode
worker, as two unified ones (each shared by a prefill and a decode process over
one pool), or as two aggregated workers. Goodput is the highest rate of Poisson
arrivals at which 90 % of the requests meet a target for the first token and
one for the mean time per later token; failed requests count. Whole answers,
and split ones, of which a phone takes over the rest.

Emulated accelerators on a virtual clock: an aggregated step that has both
costs the profile's prefill and decode time together; a unified worker's times
are divided by its fixed share, and the best of a few shares is taken. How long
KV transfers take is not emulated, which flatters P/D. The rows of the engine
"real" are real processes with real compute (benchmarks/real_modes.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.emulated_cluster import Shape, emulated_cluster
from benchmarks.goodput import ENOUGH, Target, highest_rate
from benchmarks.real_modes import real_rows
from benchmarks.split_requests import PHONE, Seen, replay
from benchmarks.virtual_clock import run_virtual
from benchmarks.workload import SYNTHETIC, Length, fitting, requests_at, synthetic
from segue_cloud.gateway.attempt import Budget
from segue_cloud.gateway.gateway import GatewayLimits
from segue_cloud.profiles.base import CloudProfile
from segue_cloud.profiles.published import find_profile

TINY = Path(__file__).resolve().parents[1] / "demos" / "model" / "tiny"
TARGETS = (Target(ttft_s=0.5, tpot_s=0.05), Target(ttft_s=2.0, tpot_s=0.15))
REAL_TARGETS = (Target(ttft_s=0.5, tpot_s=0.03), Target(ttft_s=2.0, tpot_s=0.1))
NONE = Shape(
    prefill_workers=0,
    decode_workers=0,
    max_batch=128,
    pages=12_000,
    max_context_tokens=4096,
)
PD = replace(NONE, prefill_workers=1, decode_workers=1)
AGGREGATED = replace(NONE, aggregated_workers=2)
UNIFIED = replace(NONE, unified_workers=2)
WAYS: Mapping[str, Sequence[Shape]] = {
    "pd": [PD],
    "unified": [replace(UNIFIED, unified_prefill_share=share) for share in (0.3, 0.5, 0.7)],
    "aggregated": [replace(AGGREGATED, iteration_tokens=tokens) for tokens in (256, 1024)],
}
START_RPS = 2.0
# The outputs are so many times shorter than the trace's, so that a run stays short.
SHORTER = 4


@dataclass(frozen=True)
class Size:
    """Of the measurement: requests' lengths, how long they come at each rate, bisections.

    The time is several of the targets for the first token: in a shorter one any
    rate is met that leaves no more than a burst to be worked off.
    """

    lengths: Sequence[Length]
    span_s: float = 20.0
    steps: int = 3
    seed: int = 1


async def _run(
    profile: CloudProfile, shape: Shape, rate_rps: float, target: Target, size: Size, split: bool
) -> list[Seen]:
    limits = GatewayLimits(budget=Budget(first_token_s=target.ttft_s))
    async with emulated_cluster(profile, shape, limits) as (gateway, _):
        arrivals = requests_at(size.lengths, rate_rps, size.span_s, size.seed)
        return await replay(gateway, arrivals, size.seed, profile=PHONE if split else None)


def goodput_rps(
    profile: CloudProfile, shape: Shape, target: Target, size: Size, *, split: bool
) -> float:
    """Of one emulated cluster."""

    def meets(rate_rps: float) -> bool:
        run = _run(profile, shape, rate_rps, target, size, split)
        return target.met_by(run_virtual(run))

    return highest_rate(meets, start_rps=START_RPS, steps=size.steps)


def emulated_rows(
    profile: CloudProfile,
    targets: Sequence[Target],
    size: Size,
    ways: Mapping[str, Sequence[Shape]] = WAYS,
) -> list[dict[str, Any]]:
    """A row for every target and kind of answer; of several settings of a way, the best."""
    rows = []
    for split in (False, True):
        for target in targets:
            row: dict[str, Any] = {
                "engine": "emulated",
                "answers": "split" if split else "whole",
                "ttft_s": target.ttft_s,
                "tpot_s": target.tpot_s,
            }
            for way, shapes in ways.items():
                found = [goodput_rps(profile, each, target, size, split=split) for each in shapes]
                best = max(range(len(shapes)), key=found.__getitem__)
                row[f"{way}_rps"] = found[best]
                if way == "unified":
                    row["unified_prefill_share"] = shapes[best].unified_prefill_share
                if way == "aggregated":
                    row["iteration_tokens"] = shapes[best].iteration_tokens
            rows.append(row)
    return rows


def shortened(seed: int) -> list[Length]:
    """The lengths of the emulated rows."""
    return [
        Length(each.prompt, -(-each.output // SHORTER))
        for each in fitting(synthetic(seed, 20_000), NONE.max_context_tokens)
    ]


def measure(profile: str, size: Size, model: Path | None, real_span_s: float) -> dict[str, Any]:
    """Every row; without a `model` only the emulated ones."""
    rows = emulated_rows(find_profile(profile), TARGETS, size)
    if model is not None:
        rows += real_rows(model, REAL_TARGETS, real_span_s, size.steps, size.seed)
    return {
        "rows": rows,
        "profile": profile,
        "enough": ENOUGH,
        "span_s": size.span_s,
        "real_span_s": real_span_s,
        "lengths": f"{SYNTHETIC}; outputs divided by {SHORTER}",
        "seed": size.seed,
    }


def table(report: dict[str, Any]) -> str:
    """The same for humans."""
    lines = [
        f"Goodput in requests/s: the highest rate at which {report['enough']:.0%} meet both "
        "targets",
        f"(emulated: {report['profile']}, {report['span_s']:g} s of arrivals; real: "
        f"{report['real_span_s']:g} s).",
        "",
        f"{'engine':>9} {'answers':>8} {'TTFT':>6} {'TPOT':>6} {'P/D':>7} {'unified':>8} "
        f"{'aggregated':>11}",
    ]
    for row in report["rows"]:
        pd, unified, aggregated = (f"{row[f'{way}_rps']:.2f}" for way in WAYS)
        lines.append(
            f"{row['engine']:>9} {row['answers']:>8} {row['ttft_s']:>6} {row['tpot_s']:>6} "
            f"{pd:>7} {unified:>8} {aggregated:>11}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--profile", default="a100-80g-opt-13b-tp1", help="file or name")
    parser.add_argument(
        "--span-s", type=float, default=Size.span_s, help="of arrivals at each rate, emulated"
    )
    parser.add_argument("--steps", type=int, default=Size.steps, help="bisections")
    parser.add_argument("--seed", type=int, default=Size.seed)
    parser.add_argument("--model", type=Path, default=TINY, help="of the rows with real compute")
    parser.add_argument(
        "--real-span-s", type=float, default=10.0, help="of arrivals at each rate; 0: no rows"
    )
    options = parser.parse_args()
    report = measure(
        options.profile,
        Size(shortened(options.seed), options.span_s, options.steps, options.seed),
        options.model if options.real_span_s else None,
        options.real_span_s,
    )
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()
