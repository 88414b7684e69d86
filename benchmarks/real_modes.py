"""The modes benchmark's rows with real compute: torch, real processes, gRPC.

Two engines a cluster, one thread each; gateway and clients share their
processors. So the rows show how the modes differ when computing is what is
short, not how fast an accelerator is. Lengths are a quarter of the trace's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc.aio

from benchmarks.goodput import Target, highest_rate
from benchmarks.split_requests import PHONE, Seen, ask
from benchmarks.workload import Arrival, Length, fitting, requests_at, synthetic
from demos.cluster import Cluster, running_cluster
from segue_protocol.grpc_streams import GrpcStream
from segue_protocol.identity import ModelIdentity
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from segue_protocol.wire import public

MAX_CONTEXT_TOKENS = 2048
SHORTER = 4
START_RPS = 8.0
COMMON = {
    "--max-context-tokens": MAX_CONTEXT_TOKENS,
    "--prefill-slots": 2,
    "--pages": 4096,
    "--max-batch": 64,
    "--iteration-tokens": 256,
    "--prefix-cache-bytes": 0,
    "--first-token-s": 5.0,
    "--log-level": "warning",
}
NO_PD = {"--prefill-workers": 0, "--decode-workers": 0}
WAYS: Mapping[str, Mapping[str, int]] = {
    "pd": {"--prefill-workers": 1, "--decode-workers": 1},
    "unified": {**NO_PD, "--unified-workers": 2},
    "aggregated": {**NO_PD, "--aggregated-workers": 2},
}


def real_rows(
    model: Path, targets: Sequence[Target], span_s: float, steps: int, seed: int
) -> list[dict[str, Any]]:
    """A row for every target and kind of answer."""
    rows = [
        {
            "engine": "real",
            "answers": answers,
            "ttft_s": target.ttft_s,
            "tpot_s": target.tpot_s,
        }
        for answers in ("whole", "split")
        for target in targets
    ]
    for way, flags in WAYS.items():
        words = [str(word) for flag in {**COMMON, **flags}.items() for word in flag]
        with running_cluster(model, *words) as cluster:
            asyncio.run(_replay(cluster, [Arrival(0.0, Length(64, 4))] * 4, seed, split=False))
            for row, target in zip(rows, [*targets, *targets], strict=True):
                split = row["answers"] == "split"
                row[f"{way}_rps"] = _goodput_rps(cluster, target, span_s, steps, seed, split)
    return rows


def _goodput_rps(
    cluster: Cluster, target: Target, span_s: float, steps: int, seed: int, split: bool
) -> float:
    lengths = [
        Length(-(-each.prompt // SHORTER), -(-each.output // SHORTER))
        for each in fitting(synthetic(seed, 20_000), MAX_CONTEXT_TOKENS)
    ]

    def meets(rate_rps: float) -> bool:
        arrivals = requests_at(lengths, rate_rps, span_s, seed)
        return target.met_by(asyncio.run(_replay(cluster, arrivals, seed, split=split)))

    return highest_rate(meets, start_rps=START_RPS, steps=steps)


async def _replay(
    cluster: Cluster, arrivals: Sequence[Arrival], seed: int, *, split: bool
) -> list[Seen]:
    async with grpc.aio.insecure_channel(cluster.address) as channel:
        stub = SplitInferenceServiceStub(channel)
        response = await stub.GetModel(public.GetModelRequest())
        identity = ModelIdentity.from_wire(response.identity)

        async def one(place: int, arrival: Arrival) -> Seen:
            await asyncio.sleep(arrival.at_s)
            prompt = list(random.Random(seed * 1_000_003 + place).randbytes(arrival.length.prompt))
            return await ask(
                GrpcStream(stub.Generate()),
                prompt,
                arrival.length.output,
                identity,
                profile=PHONE if split else None,
            )

        return await asyncio.gather(*(one(*each) for each in enumerate(arrivals)))
