"""Does it pay? A request trace replayed through many devices and a cluster, by policy.

    python -m benchmarks.replay [--json] [--plots DIRECTORY]

A discrete-event simulation (:mod:`demos.trace`): the engines are fitted profiles, the
decisions are the real step functions. Lengths and times of requests are those of
the Azure conversation trace where it lies at ``../shared/traces``, else synthetic;
devices, network, speed jitter and conversations are modelled, as the case's file
says. See docs/replay.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.workload import SYNTHETIC, Arrival, poisson, read_arrivals, repeated, synthetic
from demos.trace.case import CONVERSATION, Case
from demos.trace.limits import POLICIES as LIMIT_POLICIES
from demos.trace.limits import judge, limits
from demos.trace.plots import save_plots
from demos.trace.policies import POLICIES
from demos.trace.run import ORACLE_OF, Arrivals, Job, run_all

TRACES = Path(__file__).resolve().parents[2] / "shared/traces"
CODE_TRACE = "AzureLLMInferenceTrace_code.csv"
# Of the conversation trace.
SYNTHETIC_RPS = 5.53
ROW = (
    "ttft_p50_s",
    "ttft_p99_s",
    "tpot_mean_s",
    "max_gap_p99_s",
    "stalled_answers",
    "cloud_tokens",
    "slot_seconds",
    "kv_gib_seconds",
    "rps_per_instance",
    "binding",
    "qoe",
)


def workload(traces: Path, name: str, count: int | None, seed: int) -> tuple[Arrivals, str]:
    """(time, prompt, output) of every request, and where they are from."""
    path = traces / name
    found, arrivals = path.exists(), list[Arrival]()
    if found:
        arrivals = read_arrivals(path)
        arrivals = repeated(arrivals, count or len(arrivals))
    else:
        wanted = count or 20_000
        lengths = synthetic(seed, 20_000)
        arrivals = poisson(lengths, SYNTHETIC_RPS, 1.2 * wanted / SYNTHETIC_RPS + 60, seed)[:wanted]
    rows = [(each.at_s, each.length.prompt, each.length.output) for each in arrivals]
    return rows, path.stem if found else SYNTHETIC


def measure(
    case: Case,
    traces: Path,
    *,
    requests: int | None,
    search: int,
    limit_requests: int,
    processes: int,
    seed: int,
    names: Sequence[str] = tuple(POLICIES),
) -> dict[str, Any]:
    """Every policy over the case's trace, and a few over the settings of `limits`.

    `search` requests are used for capacities (0: none), `limit_requests` in each
    setting (0: none).
    """
    arrivals, trace = workload(traces, case.trace, requests, seed)
    jobs = [Job(name, case, arrivals, search, seed) for name in names]
    settings = limits(case, CODE_TRACE) if limit_requests else []
    origins = []
    for each in settings:
        some, origin = workload(traces, each.trace, limit_requests, seed)
        origins.append(origin)
        jobs += [
            Job(name, each.case, some, min(search, limit_requests), seed) for name in LIMIT_POLICIES
        ]
    rows, wall_s = run_all(jobs, processes=processes, progress=_progress(jobs))
    policies = dict(zip(names, rows, strict=False))
    oracle = {"cloud_tokens": policies[ORACLE_OF]["oracle_tokens"]} if ORACLE_OF in names else {}
    rest = iter(rows[len(names) :])
    judged = {
        each.name: {
            "trace": origin,
            **judge({name: next(rest) for name in LIMIT_POLICIES}, each.case),
        }
        for each, origin in zip(settings, origins, strict=True)
    }
    return {
        "simulated": True,
        "trace": trace,
        "case": case.name,
        "requests": len(arrivals),
        "seed": seed,
        "profile": case.cloud.profile,
        "policies": policies,
        "oracle": oracle,
        "claims": claims(policies, oracle, case),
        "limits": judged,
        "replayed_requests": sum(len(job.arrivals) for job in jobs),
        "processes": processes,
        "wall_s": wall_s,
        # Of the replays, without the searches: what they take of one core.
        "replay_cpu_s": sum(row.pop("cpu_s") for row in rows),
    }


def claims(
    rows: Mapping[str, Mapping[str, Any]], oracle: Mapping[str, float], case: Case
) -> dict[str, dict[str, Any]]:
    """What the split must show on the fixed case, with what it showed."""
    needed = ("device_only", "cloud_pd", "split", "split_refined", "split_refined_r25")
    if any(name not in rows for name in needed):
        return {}
    alone, whole, split, refined, quarter = (rows[name] for name in needed)
    pace_s = max(case.device.decode_s, 0.05)
    found = {
        "ttft_saved": (1 - split["ttft_p50_s"] / alone["ttft_p50_s"], ">=", 0.60),
        "tpot_mean_over_pace": (split["tpot_mean_s"] / pace_s, "<=", 1.1),
        "stalled_answers": (split["stalled_answers"], "<=", 0.01),
        "cloud_tokens_over_oracle": (split["cloud_tokens"] / oracle["cloud_tokens"], "<=", 1.25),
        "slot_time_saved_r25": (whole["slot_seconds"] / quarter["slot_seconds"], ">=", 12.0),
        "slot_time_saved_tuner": (whole["slot_seconds"] / refined["slot_seconds"], "", None),
    }
    table: dict[str, dict[str, Any]] = {}
    for name, (value, relation, target) in found.items():
        met = None
        if target is not None:
            met = value >= target if relation == ">=" else value <= target
        table[name] = {"value": value, "target": f"{relation} {target}" if relation else None}
        table[name]["met"] = met
    table["slot_time_saved_r25"]["recall"] = case.quality.get(0.25)
    table["slot_time_saved_tuner"]["keep_ratio"] = refined.get("keep_ratio")
    return table


def table(report: Mapping[str, Any], case: Case) -> str:
    """The same for humans."""
    lines = [
        f"Replayed (simulated): {report['requests']} requests of {report['trace']}, case "
        f"{report['case']}, {case.cloud.instances} instances {report['profile']}.",
        "Per answer, times in seconds; rps: requests/s an instance takes with "
        f"{case.targets.attainment:.0%} in time, and what binds then.",
        "",
        f"{'policy':<20} {'TTFT p50':>8} {'p99':>6} {'TPOT':>6} {'gap p99':>7} {'stalls':>7} "
        f"{'cloud':>6} {'slot s':>7} {'GiB s':>6} {'QoE':>5} {'rps':>5}  binding",
    ]
    for name, row in report["policies"].items():
        rps = row.get("rps_per_instance")
        lines.append(
            f"{name:<20} {_f(row['ttft_p50_s']):>8} {_f(row['ttft_p99_s']):>6} "
            f"{_f(row['tpot_mean_s']):>6} {_f(row['max_gap_p99_s']):>7} "
            f"{row['stalled_answers']:>7.2%} {row['cloud_tokens']:>6.1f} "
            f"{row['slot_seconds']:>7.3f} {row['kv_gib_seconds']:>6.2f} {row['qoe']:>5.3f} "
            f"{_f(rps, 2):>5}  {row.get('binding') or ''}"
        )
    if report["oracle"]:
        lines.append(f"{'oracle':<20} {report['oracle']['cloud_tokens']:>51.1f}")
    if report["claims"]:
        lines += ["", "Targets of the fixed case:"]
        for name, claim in report["claims"].items():
            verdict = {True: "met", False: "MISSED", None: ""}[claim["met"]]
            lines.append(
                f"  {name:<26} {claim['value']:8.3f} {claim['target'] or '':>10} {verdict}"
            )
        own = report["claims"]["slot_time_saved_tuner"]["keep_ratio"]
        lines.append(f"  the tuner's own keep ratio: {own:.3g} in the mean")
        lines.append(f"  recall by keep ratio: {dict(case.quality)} ({case.quality_source})")
    if report["limits"]:
        lines += ["", "When not to split:"]
        lines += [f"  {name}: {found['says']}" for name, found in report["limits"].items()]
    lines.append("")
    lines.append(
        f"{report['replayed_requests']} requests replayed in {report['replay_cpu_s']:.0f} s of "
        f"processor time; with the searches for capacity {report['wall_s']:.0f} s by "
        f"{report['processes']} processes."
    )
    return "\n".join(lines)


def _f(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _progress(jobs: Sequence[Job]) -> Any:
    total = sum(len(job.arrivals) for job in jobs)

    def show(answers: int, rows: int, all_rows: int) -> None:
        if sys.stderr.isatty():
            filled = 40 * answers // max(1, total)
            bar = "#" * filled + "." * (40 - filled)
            print(
                f"\r[{bar}] {answers}/{total} requests, {rows}/{all_rows} rows",
                end="\n" if rows == all_rows else "",
                file=sys.stderr,
                flush=True,
            )

    return show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--case", type=Path, default=CONVERSATION)
    parser.add_argument("--traces", type=Path, default=TRACES, help="directory of the traces")
    parser.add_argument("--requests", type=int, help="default: the whole trace; it may repeat")
    parser.add_argument("--search", type=int, default=2000, help="requests of a search; 0: none")
    parser.add_argument("--limits", type=int, default=1000, help="requests of a limit; 0: none")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plots", type=Path, help="directory for SVG files")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    case = Case.load(options.case)
    report = measure(
        case,
        options.traces,
        requests=options.requests,
        search=options.search,
        limit_requests=options.limits,
        processes=options.processes,
        seed=options.seed,
        names=options.policies,
    )
    if options.plots:
        save_plots(report, options.plots)
    print(json.dumps(report) if options.json else table(report, case))


if __name__ == "__main__":
    main()
