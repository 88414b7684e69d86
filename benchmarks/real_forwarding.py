"""The forwarding benchmark's row with real compute: torch, real processes, gRPC.

A cluster of two prefill workers and one decode worker on this machine, which
all its processes and the clients share; so the row shows that the machinery
does the same with real compute, not how fast an accelerator is. Reports of
pending tokens are the benchmark's own and not in Segue's gateway: here the
queue at prefill is a cluster whose workers have more slots than ever wait.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import grpc.aio

from benchmarks.split_requests import Seen, ask
from benchmarks.workload import Arrival, Length, poisson
from demos.cluster import Cluster, running_cluster
from segue_protocol.grpc_streams import GrpcStream
from segue_protocol.identity import ModelIdentity
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from segue_protocol.wire import public

PREFILL_WORKERS = 2
SLOTS = {"on_demand": 2, "queued": 256}
MAX_CONTEXT_TOKENS = 2048
WARM_UP, PROBES = 2, 6


def run_real(
    model: Path,
    lengths: Sequence[Length],
    *,
    load: float,
    duration_s: float,
    ttft_s: float,
    seed: int,
) -> tuple[float, dict[str, list[Seen]]]:
    """Both ways over the same arrivals; the rate of arrivals and what the devices saw.

    Load 1 is as many requests a second as the prefill workers would serve if
    each had a processor of its own.
    """
    with running_cluster(model, *_flags(slots=SLOTS["on_demand"], first_token_s=60.0)) as cluster:
        rate_rps = load * PREFILL_WORKERS / asyncio.run(_prefill_s(cluster, lengths, seed))
    arrivals = poisson(list(lengths), rate_rps, duration_s, seed)
    found: dict[str, list[Seen]] = {}
    for way, slots in SLOTS.items():
        with running_cluster(model, *_flags(slots=slots, first_token_s=ttft_s)) as cluster:
            found[way] = asyncio.run(_replay(cluster, arrivals, seed))
    return rate_rps, found


def _flags(*, slots: int, first_token_s: float) -> list[str]:
    flags = {
        "--prefill-workers": PREFILL_WORKERS,
        "--prefill-slots": slots,
        "--prefill-chunk-tokens": MAX_CONTEXT_TOKENS,
        "--max-context-tokens": MAX_CONTEXT_TOKENS,
        "--pages": 16_384,
        "--max-batch": 128,
        "--first-token-s": first_token_s,
    }
    return [str(word) for pair in flags.items() for word in pair]


async def _prefill_s(cluster: Cluster, lengths: Sequence[Length], seed: int) -> float:
    """Mean time of a prefill on the idle cluster, by the cloud's own account."""
    total_s = 0.0
    async with grpc.aio.insecure_channel(cluster.address) as channel:
        stub = SplitInferenceServiceStub(channel)
        identity = await _identity(stub)
        for place in range(WARM_UP + PROBES):
            length = lengths[place]
            timings = public.CloudTimings()
            seen = await ask(
                GrpcStream(stub.Generate()),
                _prompt(length, seed, -place - 1),
                min(4, length.output),
                identity,
                timings,
            )
            if seen.error is not None:
                raise seen.error
            if place >= WARM_UP:
                total_s += timings.prefill_s
    return total_s / PROBES


async def _replay(cluster: Cluster, arrivals: Sequence[Arrival], seed: int) -> list[Seen]:
    async with grpc.aio.insecure_channel(cluster.address) as channel:
        stub = SplitInferenceServiceStub(channel)
        identity = await _identity(stub)

        async def one(place: int, arrival: Arrival) -> Seen:
            await asyncio.sleep(arrival.at_s)
            prompt = _prompt(arrival.length, seed, place)
            return await ask(GrpcStream(stub.Generate()), prompt, arrival.length.output, identity)

        for place in range(WARM_UP):  # the first pass of a process takes longer than others
            await one(-place - 1, Arrival(0.0, Length(64, 2)))
        return await asyncio.gather(*(one(*each) for each in enumerate(arrivals)))


async def _identity(stub: SplitInferenceServiceStub) -> ModelIdentity:
    response = await stub.GetModel(public.GetModelRequest())
    return ModelIdentity.from_wire(response.identity)


def _prompt(length: Length, seed: int, place: int) -> list[int]:
    return list(random.Random(seed * 1_000_003 + place).randbytes(length.prompt))
