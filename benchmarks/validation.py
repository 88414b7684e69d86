"""The replay against what it replays: the same requests simulated, and through the real cluster.

    python -m benchmarks.validation [--json]

Two rows. *Emulated*: the real gateway, workers and device SDK on a virtual clock, engines
that take the time of a published profile. *Real compute*: a cluster of processes with
the tiny model, whose profile and path are fitted to other answers of the same run, and the SDK
with an engine slowed to a phone. TTFT, cloud tokens and takeover index are compared
answer by answer and at the median.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.emulated_cluster import Shape, emulated_cluster
from benchmarks.real_answers import CONTEXT, OUTPUT, PREFILL_TPS, fitted, path_s, run_real
from benchmarks.virtual_clock import run_virtual
from benchmarks.workload import fitting, poisson, synthetic
from demos.cluster import running_cluster
from demos.trace.case import Case
from demos.trace.policies import POLICIES
from demos.trace.replay import replay
from demos.trace.requests import Request, draw_requests
from demos.trace.speed import TrueSpeed
from segue_cloud.gateway.gateway import Gateway, GatewayLimits
from segue_device import AsyncClient, DeviceModel, Result
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.engines.runner import InlineRunner
from segue_device.transports.delayed import DelayedTransport
from segue_device.transports.local import LocalTransport
from segue_protocol.reference import reference_vocabulary

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "demos/model/tiny"
AGREEMENT = 0.15
# Emulated: requests a second at one prefill and one decode instance; what fits them.
RATE_RPS, CONTEXT_TOKENS = 1.5, 4096


@dataclass(frozen=True)
class Seen:
    """One answer."""

    ttft_s: float
    cloud_tokens: int
    takeover_index: int | None

    @classmethod
    def of(cls, result: Result) -> Seen:
        assert result.timings.ttft_s is not None
        made = result.usage.cloud_tokens + result.usage.discarded_tokens
        return cls(result.timings.ttft_s, made, result.takeover_index)


def compare(real: Sequence[Seen], simulated: Sequence[Seen]) -> dict[str, Any]:
    """Medians of both, and how far they lie apart: of the medians, and the median answer."""
    report: dict[str, Any] = {"answers": len(real)}
    for name in ("ttft_s", "cloud_tokens", "takeover_index"):
        pairs = [
            (getattr(ours, name), getattr(theirs, name))
            for ours, theirs in zip(real, simulated, strict=True)
            if getattr(ours, name) is not None and getattr(theirs, name) is not None
        ]
        here, there = (statistics.median(side) for side in zip(*pairs, strict=True))
        off = [abs(theirs - ours) / max(ours, 1e-9) for ours, theirs in pairs]
        report[name] = {
            "real": here,
            "simulated": there,
            "medians_apart": abs(there - here) / max(here, 1e-9),
            "median_apart": statistics.median(off),
        }
    report["agrees"] = all(
        max(row["medians_apart"], row["median_apart"]) <= AGREEMENT
        for row in report.values()
        if isinstance(row, dict)
    )
    report["takeovers"] = {
        "real": sum(each.takeover_index is not None for each in real),
        "simulated": sum(each.takeover_index is not None for each in simulated),
    }
    return report


def simulate(case: Case, requests: Sequence[Request]) -> list[Seen]:
    """The split policy over `requests`, in their order."""
    found = replay(POLICIES["split"], case, requests).outcomes
    found.sort(key=lambda outcome: outcome.request.index)
    return [Seen(each.ttft_s, each.cloud_tokens, each.takeover_index) for each in found]


# ---- emulated accelerators, virtual clock


def emulated(answers: int, seed: int) -> dict[str, Any]:
    """A Poisson load of answers with the lengths of the conversation trace."""
    case = _plain(Case.load())
    lengths = fitting(synthetic(seed, 4 * answers), CONTEXT_TOKENS - 1)
    arrivals = poisson(lengths, RATE_RPS, 2 * answers / RATE_RPS, seed)[:answers]
    rows = [(each.at_s, each.length.prompt, each.length.output) for each in arrivals]
    wanted = [
        replace(each, max_tokens=each.output_tokens) for each in draw_requests(rows, case, seed)
    ]
    results = run_virtual(_run_emulated(case, wanted))
    # Where the model ended an answer is known only now.
    requests = [
        replace(each, output_tokens=len(result.token_ids))
        for each, result in zip(wanted, results, strict=True)
    ]
    report = compare([Seen.of(each) for each in results], simulate(case, requests))
    return {"emulated": True, "profile": case.cloud.profile, "rate_rps": RATE_RPS, **report}


def _plain(case: Case) -> Case:
    """One instance of each role, and a network as the emulated one is."""
    cloud = replace(
        case.cloud,
        instances=2,
        prefill_workers=1,
        pages=Shape.pages,
        kv_bytes_per_token=16,
        first_token_s=30.0,
    )
    return replace(
        case, cloud=cloud, network=replace(case.network, jitter_s=0.0, bytes_per_token=0.0)
    )


async def _run_emulated(case: Case, requests: Sequence[Request]) -> list[Result]:
    shape = Shape(
        prefill_workers=1,
        decode_workers=1,
        prefill_slots=case.cloud.prefill_slots,
        max_context_tokens=CONTEXT_TOKENS,
    )
    async with emulated_cluster(case.cloud_profile, shape, GatewayLimits()) as (gateway, _):

        async def one(request: Request) -> Result:
            await asyncio.sleep(request.at_s)
            return await _ask_emulated(case, gateway, request)

        return await asyncio.gather(*(one(each) for each in requests))


async def _ask_emulated(case: Case, gateway: Gateway, request: Request) -> Result:
    jitter = case.device.speed_jitter
    speed = TrueSpeed(case.device.profile, request.speed, jitter, request.chance("device"))
    engine = ReferenceDeviceEngine(chunk_tokens=case.device.chunk_tokens)
    model = DeviceModel(
        InlineRunner(engine, _taking(speed)), case.device.profile, reference_vocabulary()
    )
    transport = DelayedTransport(
        LocalTransport(gateway.generate, gateway.get_model), case.network.rtt_s
    )
    prompt = list(request.chance("prompt").randbytes(request.prompt_tokens))
    async with AsyncClient(cloud=transport, model=model, reuse_kv=False) as client:
        stream = client.stream(prompt_token_ids=prompt, max_tokens=request.max_tokens)
        async with stream as answer:
            return await answer.final()


def _taking(speed: TrueSpeed) -> Callable[[int, int], Awaitable[None]]:
    async def cost(tokens: int, cells: int) -> None:
        await asyncio.sleep(speed.append_s(tokens, cells))

    return cost


# ---- real compute


def real(model: Path, seed: int) -> dict[str, Any]:
    """One answer at a time through a cluster of processes; the phone is emulated."""
    case = _plain(Case.load())
    device = replace(
        case.device,
        prefill_per_token_s=1 / PREFILL_TPS,
        speed_jitter=0.0,
        relative_error=0.0,
    )
    case = replace(case, device=device)
    flags = ("--max-context-tokens", str(CONTEXT), "--prefix-cache-bytes", "0")
    with running_cluster(model, *flags) as cluster:
        results = asyncio.run(run_real(model, cluster.address, case, seed))
    profile, added_s = fitted(results[1::2]), path_s(results[1::2])
    # All of them in their order, so that what the gateway learns is the same.
    requests = [
        Request(
            index=place,
            at_s=60.0 * place,
            prompt_tokens=result.usage.prompt_tokens,
            output_tokens=len(result.token_ids),
            max_tokens=OUTPUT,
            cached_tokens=0,
            speed=1.0,
            seed=seed,
        )
        for place, result in enumerate(results)
    ]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "profile.json"
        profile.save(path)
        fitted_case = replace(
            case,
            cloud=replace(case.cloud, profile=str(path)),
            network=replace(case.network, rtt_s=added_s),
        )
        simulated = simulate(fitted_case, requests)
    report = compare([Seen.of(each) for each in results[2::2]], simulated[2::2])
    return {
        "emulated": False,
        "model": model.name,
        "profile": profile.to_json(),
        "path_s": added_s,
        **report,
    }


def table(report: dict[str, Any]) -> str:
    """The same for humans."""
    lines = []
    for kind in ("emulated", "real"):
        if kind not in report:
            continue
        row = report[kind]
        lines.append(f"{kind}: {row['answers']} answers, agrees: {row['agrees']}")
        for name in ("ttft_s", "cloud_tokens", "takeover_index"):
            cell = row[name]
            lines.append(
                f"  {name:<15} real {cell['real']:8.3f}  simulated {cell['simulated']:8.3f}  "
                f"medians {cell['medians_apart']:.1%} apart, median answer "
                f"{cell['median_apart']:.1%}"
            )
    return "\n".join(lines)


def measure(*, answers: int, model: Path | None, seed: int) -> dict[str, Any]:
    """Both rows; without `model` the emulated one alone."""
    report = {"emulated": emulated(answers, seed), "agreement": AGREEMENT}
    if model is not None:
        report["real"] = real(model, seed)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--answers", type=int, default=60, help="of the emulated row")
    parser.add_argument("--model", type=Path, default=TINY, help="of the row with real compute")
    parser.add_argument("--no-real", action="store_true", help="the emulated row alone")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = measure(
        answers=options.answers,
        model=None if options.no_real else options.model,
        seed=options.seed,
    )
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()
