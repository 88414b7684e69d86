"""The automatic ratio of prefill to decode workers against every fixed one.

    python -m benchmarks.ratio [--json]

Midway the load changes: long answers to short prompts, then short answers to
long prompts. Four *emulated accelerators* on a virtual clock behind the real
gateway; the balancer and its measures are Segue's own, and the automatic
cluster begins with two workers of each role. A request counts when its first
token comes within the target; refused ones do not, and one that breaks is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.emulated_cluster import Shape, emulated_cluster
from benchmarks.split_requests import Seen, replay
from benchmarks.virtual_clock import run_virtual
from benchmarks.workload import Arrival, Length, poisson
from segue_cloud.cluster.balancer import Balancer, GroupWatch
from segue_cloud.cluster.groups import DEFAULT_GROUP
from segue_cloud.cluster.measures import GroupMeasures
from segue_cloud.cluster.members import Member, Membership
from segue_cloud.cluster.ratio import Damping
from segue_cloud.gateway.attempt import Budget
from segue_cloud.gateway.gateway import GatewayLimits
from segue_cloud.profiles.published import find_profile
from segue_protocol.errors import Overloaded
from segue_protocol.wire import private

WORKERS = 4
PROFILE = "a100-80g-opt-13b-tp1"
SHAPE = Shape(max_batch=16, pages=4_000, max_context_tokens=2048)
PHASES = (Length(prompt=300, output=150), Length(prompt=1500, output=20))
RATE_RPS = 14.0
TTFT_S = 1.0
# Quicker than the defaults, as the whole run is short.
WINDOW_S = 4.0
DAMPING = Damping(hold_s=1.0, rest_s=3.0)


@dataclass(frozen=True)
class Outcome:
    """Of one run."""

    served_rps: float
    lost_requests: int
    switches: int


def workload(phase_s: float, seed: int) -> list[Arrival]:
    """The same arrivals for every way."""
    arrivals = []
    for place, length in enumerate(PHASES):
        part = poisson([length], RATE_RPS, phase_s, seed + place)
        arrivals += [replace(each, at_s=each.at_s + place * phase_s) for each in part]
    return arrivals


async def run(prefill_workers: int, automatic: bool, phase_s: float, seed: int) -> Outcome:
    """One cluster under the whole load."""
    watch = GroupWatch([DEFAULT_GROUP])
    watch.measures[DEFAULT_GROUP] = GroupMeasures(WINDOW_S)
    membership = Membership(watch=watch)
    shape = replace(
        SHAPE, prefill_workers=prefill_workers, decode_workers=WORKERS - prefill_workers
    )
    limits = GatewayLimits(budget=Budget(first_token_s=TTFT_S))
    switches: list[asyncio.Task[None]] = []
    async with emulated_cluster(find_profile(PROFILE), shape, limits, membership=membership) as (
        gateway,
        instances,
    ):

        def switch(member: Member, role: private.Role) -> None:
            switches.append(asyncio.create_task(instances.switch(member, role)))

        balancer = Balancer(
            membership,
            watch.measures,
            switch,
            automatic=[DEFAULT_GROUP] if automatic else [],
            damping=DAMPING,
        )
        balancing = asyncio.create_task(balancer.run())
        seen = await replay(gateway, workload(phase_s, seed), seed, profile=None)
        balancing.cancel()
        await asyncio.gather(*switches)
    return Outcome(
        served_rps=sum(each.error is None and each.ttft_s <= TTFT_S for each in seen)
        / (phase_s * len(PHASES)),
        lost_requests=_lost(seen),
        switches=len(switches),
    )


def _lost(seen: Sequence[Seen]) -> int:
    """Answers that broke; one that was refused was never begun."""
    return sum(
        each.error is not None and (bool(each.tokens_s) or not isinstance(each.error, Overloaded))
        for each in seen
    )


def compare(phase_s: float, seed: int) -> dict[str, Any]:
    """Every fixed ratio, and the automatic one."""
    fixed = {
        f"{prefill}:{WORKERS - prefill}": run_virtual(run(prefill, False, phase_s, seed))
        for prefill in range(1, WORKERS)
    }
    auto = run_virtual(run(WORKERS // 2, True, phase_s, seed))
    return {
        "auto_rps": auto.served_rps,
        "fixed": {ratio: each.served_rps for ratio, each in fixed.items()},
        "lost_requests": auto.lost_requests + sum(each.lost_requests for each in fixed.values()),
        "switches": auto.switches,
        "emulated": True,
        "profile": PROFILE,
        "workers": WORKERS,
        "phase_s": phase_s,
        "rate_rps": RATE_RPS,
        "seed": seed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--phase-s", type=float, default=40.0, help="virtual seconds a phase")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = compare(options.phase_s, options.seed)
    if options.json:
        print(json.dumps(report))
        return
    print(f"Emulated accelerators ({PROFILE}), {WORKERS} workers; requests served in time a second")
    for ratio, rps in report["fixed"].items():
        print(f"  fixed {ratio}    {rps:6.2f}")
    print(f"  automatic    {report['auto_rps']:6.2f}   ({report['switches']} switches)")
    print(f"  lost         {report['lost_requests']:6}")


if __name__ == "__main__":
    main()
