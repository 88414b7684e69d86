"""Answers through a cluster of processes with real compute, and what they tell of its speed."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from pathlib import Path

from demos.trace.case import Case
from segue_cloud.profiles.base import CloudProfile, DecodeCost, PrefillCost
from segue_device import AsyncClient, DeviceModel, Result
from segue_device.convert.to_onnx import convert_to_onnx
from segue_device.engines import EngineRunner, load_engine
from segue_device.engines.throttled import ThrottledEngine
from segue_device.profile_fit import fit_prefill
from segue_device.transports.delayed import DelayedTransport
from segue_device.transports.grpc import GrpcTransport
from segue_protocol.errors import Unavailable
from segue_protocol.tokenizer import ChatTokenizer

ROOT = Path(__file__).resolve().parents[1]
# Real compute: prompt lengths, an odd number of them, asked twice after one answer that warms
# up. Every second answer fits the profile, so each length does so once and is compared once.
LENGTHS = (150, 200, 300, 400, 500, 600, 700, 800, 1000)
WARM_UP = 64
OUTPUT, CONTEXT = 120, 2048
# A slow phone: the cloud shares a small machine with it and must still be the quicker one.
PREFILL_TPS = 300


async def run_real(model: Path, address: str, case: Case, seed: int) -> list[Result]:
    tokenizer = ChatTokenizer.from_directory(model)
    onnx = convert_to_onnx(model, ROOT / "models" / f"{model.name}-onnx")
    engine = ThrottledEngine(load_engine(onnx), case.device.profile)
    transport = DelayedTransport(GrpcTransport(address), case.network.rtt_s)
    device = DeviceModel(EngineRunner(engine), case.device.profile, tokenizer.vocabulary, tokenizer)
    results = []
    async with AsyncClient(cloud=transport, model=device, reuse_kv=False) as client:
        for tokens in (WARM_UP, *LENGTHS, *LENGTHS):
            prompt = _prompt(tokens, tokenizer, seed)
            stream = client.stream(prompt_token_ids=prompt, max_tokens=OUTPUT)
            async with stream as answer:
                results.append(await answer.final())
    return results


def fitted(results: Sequence[Result]) -> CloudProfile:
    """The cluster's speed by its own account of these answers."""
    prefills: dict[int, float] = {}
    steps_s = []
    for result in results:
        assert result.cloud is not None
        timings = result.cloud.timings
        if not timings.prefill_s:
            raise Unavailable(
                "the device was ready before the cluster had prefilled "
                f"{result.usage.prompt_tokens} tokens; run this on a machine that is less busy",
                reason="MACHINE_BUSY",
            )
        prefills[result.usage.prompt_tokens] = timings.prefill_s
        made = result.usage.cloud_tokens + result.usage.discarded_tokens
        if made > 1:
            steps_s.append(timings.slot_s / (made - 1))
    fit = fit_prefill(prefills)
    return CloudProfile(
        name="fitted",
        source="answers of the same cluster",
        prefill=PrefillCost(fit.base_s, fit.per_token_s, fit.per_token2_s),
        decode=(DecodeCost(statistics.median(steps_s), 0.0, 0.0),),
    )


def path_s(results: Sequence[Result]) -> float:
    """What an answer's first token takes beside its prefill: the emulated round trip, and on
    top of it sockets, processes and the gateway."""
    return statistics.median(
        result.timings.received_s[0] - result.cloud.timings.prefill_s
        for result in results
        if result.cloud is not None
    )


def _prompt(tokens: int, tokenizer: ChatTokenizer, seed: int) -> list[int]:
    """Token ids as they come, of no meaning."""
    ordinary = sorted(set(range(256)) - set(tokenizer.vocabulary.special_ids))
    return random.Random(f"{seed} {tokens}").choices(ordinary, k=tokens)
