"""On-demand forwarding against queues at the prefill workers, at and above capacity.

    python -m benchmarks.forwarding [--json]

Open-loop Poisson arrivals of split answers. Both ways run the same gateway,
workers, batches and targets on *emulated accelerators* and a virtual clock;
only where a request waits, and how its worker is chosen, differs. A request
succeeds when its first token and its longest gap between two tokens are within
their targets; refused ones count as failures.

Lengths are those of the Azure conversation trace where it lies at
``../shared/traces``, else synthetic. One row beside the emulated ones is of
real processes with real compute (see benchmarks/real_forwarding.py).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.emulated_cluster import Routing, Shape, emulated_cluster, one_link_each
from benchmarks.queue_at_prefill import QueueAtPrefill
from benchmarks.real_forwarding import MAX_CONTEXT_TOKENS, PREFILL_WORKERS, SLOTS, run_real
from benchmarks.split_requests import Seen, replay
from benchmarks.virtual_clock import run_virtual
from benchmarks.workload import SYNTHETIC, Arrival, Length, fitting, poisson, read_trace, synthetic
from segue_cloud.gateway.attempt import Budget
from segue_cloud.gateway.gateway import GatewayLimits
from segue_cloud.profiles.base import CloudProfile
from segue_cloud.profiles.published import find_profile

LOADS = (0.5, 1.0, 2.0, 4.0)
TINY = Path(__file__).resolve().parents[1] / "demos" / "model" / "tiny"
TRACE = Path(__file__).resolve().parents[2] / "shared/traces/AzureLLMInferenceTrace_conv.csv"
# More than ever wait: a queue at the worker has no end.
QUEUE_SLOTS = 1024


@dataclass(frozen=True)
class Target:
    """What a request must meet (seconds)."""

    ttft_s: float = 1.0
    gap_s: float = 0.25


async def _run(
    profile: CloudProfile,
    shape: Shape,
    target: Target,
    arrivals: Sequence[Arrival],
    seed: int,
    routing: Routing,
) -> list[Seen]:
    limits = GatewayLimits(budget=Budget(first_token_s=target.ttft_s))
    async with emulated_cluster(profile, shape, limits, routing) as (gateway, _):
        return await replay(gateway, arrivals, seed)


def figures(seen: Sequence[Seen], target: Target, duration_s: float) -> dict[str, float]:
    """One row: share of successes, successes a second, p99 of the first tokens that came."""
    good = sum(each.succeeded(target.ttft_s, target.gap_s) for each in seen)
    ttfts = sorted(each.ttft_s for each in seen if each.tokens_s)
    return {
        "slo_success": good / len(seen),
        "goodput_rps": good / duration_s,
        "p99_ttft_s": ttfts[math.ceil(0.99 * len(ttfts)) - 1] if ttfts else math.inf,
        "refused": sum(each.error is not None for each in seen),
        "requests": len(seen),
    }


def compare(
    profile: CloudProfile,
    shape: Shape,
    target: Target,
    lengths: list[Length],
    *,
    loads: Sequence[float] = LOADS,
    duration_s: float,
    report_s: float,
    seed: int,
) -> dict[str, Any]:
    """Both ways, and the stronger baseline, over the same arrivals at every load."""
    capacity_rps = shape.prefill_workers / statistics.mean(
        profile.prefill_s([each.prompt]) for each in lengths
    )
    queues = replace(shape, prefill_slots=QUEUE_SLOTS)
    ways: dict[str, tuple[Shape, Routing]] = {
        "on_demand": (shape, one_link_each),
        "queued": (queues, lambda workers: [QueueAtPrefill(workers, report_s=report_s)]),
        "queued_informed": (
            queues,
            lambda workers: [QueueAtPrefill(workers, report_s=report_s, informed=True)],
        ),
    }
    rows = []
    for load in loads:
        arrivals = poisson(lengths, load * capacity_rps, duration_s, seed)
        row: dict[str, Any] = {"load": load}
        for name, (size, routing) in ways.items():
            seen = run_virtual(_run(profile, size, target, arrivals, seed, routing))
            row[name] = figures(seen, target, duration_s)
        rows.append(row)
    return {
        "emulated": True,
        "profile": profile.name,
        "instances": shape.prefill_workers + shape.decode_workers,
        "prefill_workers": shape.prefill_workers,
        "decode_workers": shape.decode_workers,
        "capacity_rps": capacity_rps,
        "ttft_target_s": target.ttft_s,
        "gap_target_s": target.gap_s,
        "report_s": report_s,
        "duration_s": duration_s,
        "seed": seed,
        "loads": rows,
    }


def real(
    model: Path, lengths: list[Length], target: Target, *, duration_s: float, seed: int
) -> dict[str, Any]:
    """The row with real compute, at the capacity of its prefill workers."""
    load = 1.0
    rate_rps, seen = run_real(
        model,
        random.Random(seed).choices(fitting(lengths, MAX_CONTEXT_TOKENS), k=2000),
        load=load,
        duration_s=duration_s,
        ttft_s=target.ttft_s,
        seed=seed,
    )
    rows = {way: figures(each, target, duration_s) for way, each in seen.items()}
    return {"emulated": False, "model": model.name, "load": load, "rate_rps": rate_rps, **rows}


def table(report: dict[str, Any]) -> str:
    """The same for humans."""
    lines = [
        f"Emulated accelerators ({report['profile']}), {report['prefill_workers']} prefill and "
        f"{report['decode_workers']} decode instances, capacity {report['capacity_rps']:.1f} "
        f"requests/s; lengths {report['lengths']}.",
        f"Success: first token within {report['ttft_target_s']} s and no gap above "
        f"{report['gap_target_s']} s.",
        "",
        f"{'load':>5} {'way':>16} {'success':>8} {'goodput/s':>10} {'p99 TTFT':>9} {'refused':>8}",
    ]
    for row in report["loads"]:
        for way in ("on_demand", "queued", "queued_informed"):
            lines.append(_line(row["load"], way, row[way]))
    if real_row := report.get("real_compute"):
        lines += [
            "",
            f"Real compute and processes ({real_row['model']}, {PREFILL_WORKERS} prefill workers, "
            f"{real_row['rate_rps']:.1f} requests/s; queued: "
            f"{SLOTS['queued']} slots a worker, chosen by open streams):",
            *(_line(real_row["load"], way, real_row[way]) for way in SLOTS),
        ]
    return "\n".join(lines)


def _line(load: float, way: str, row: dict[str, float]) -> str:
    return (
        f"{load:>5} {way:>16} {row['slo_success']:>8.1%} {row['goodput_rps']:>10.2f} "
        f"{row['p99_ttft_s']:>9.3f} {row['refused']:>8}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--profile", default="a100-80g-opt-13b-tp1", help="file or name")
    parser.add_argument("--prefill-workers", type=int, default=Shape.prefill_workers)
    parser.add_argument("--decode-workers", type=int, default=Shape.decode_workers)
    parser.add_argument("--duration-s", type=float, default=15.0, help="of arrivals, virtual")
    parser.add_argument("--report-s", type=float, default=1.0, help="between two reports")
    parser.add_argument("--ttft-s", type=float, default=Target.ttft_s)
    parser.add_argument("--gap-s", type=float, default=Target.gap_s)
    parser.add_argument("--trace", type=Path, default=TRACE, help="CSV; synthetic if absent")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=TINY, help="of the row with real compute")
    parser.add_argument("--real-s", type=float, default=10.0, help="of that row; 0: without")
    options = parser.parse_args()
    shape = Shape(prefill_workers=options.prefill_workers, decode_workers=options.decode_workers)
    found = options.trace.exists()
    lengths = read_trace(options.trace) if found else synthetic(options.seed, 20_000)
    report = compare(
        find_profile(options.profile),
        shape,
        Target(options.ttft_s, options.gap_s),
        fitting(lengths, shape.max_context_tokens),
        duration_s=options.duration_s,
        report_s=options.report_s,
        seed=options.seed,
    )
    report["lengths"] = options.trace.stem if found else SYNTHETIC
    if options.real_s:
        report["real_compute"] = real(
            options.model,
            lengths,
            Target(options.ttft_s, options.gap_s),
            duration_s=options.real_s,
            seed=options.seed,
        )
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()
