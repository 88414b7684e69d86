"""A case whose times can be reckoned by hand: no jitter, round numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demos.trace.case import Case
from demos.trace.outcome import Outcome
from demos.trace.policies import POLICIES
from demos.trace.replay import replay
from demos.trace.requests import Request
from segue_cloud.profiles.base import CloudProfile, DecodeCost, PrefillCost

# 1 ms a prompt token, 10 ms a decode step, whatever the batch.
EVEN = CloudProfile(
    name="even",
    source="made up",
    prefill=PrefillCost(0.0, 0.001, 0.0),
    decode=(DecodeCost(0.010, 0.0, 0.0),),
)


def even_case(directory: Path, **cloud: Any) -> Case:
    """Devices of 100 prefill and 20 decode tokens/s, 40 ms round trip, EVEN accelerators."""
    case = Case.load()
    path = directory / "even.json"
    EVEN.save(path)
    return replace(
        case,
        device=replace(
            case.device,
            prefill_per_token_s=0.01,
            handover_s=0.0,
            relative_error=0.0,
            speed_jitter=0.0,
            chunk_tokens=50,
        ),
        network=replace(case.network, jitter_s=0.0, bytes_per_token=0.0),
        cloud=replace(
            case.cloud,
            **{
                "profile": str(path),
                "instances": 2,
                "prefill_workers": 1,
                "kv_bytes_per_token": 1000,
                "transfer_bytes_per_s": 1_000_000.0,  # 1 ms a token
                **cloud,
            },
        ),
    )


def request(index: int = 0, at_s: float = 0.0, prompt: int = 100, output: int = 40) -> Request:
    return Request(
        index=index,
        at_s=at_s,
        prompt_tokens=prompt,
        output_tokens=output,
        max_tokens=200,
        cached_tokens=0,
        speed=1.0,
        seed=1,
    )


def run(policy: str, case: Case, requests: Sequence[Request], **options: Any) -> list[Outcome]:
    """Outcomes in the order of the requests."""
    found = replay(POLICIES[policy], case, requests, **options).outcomes
    return sorted(found, key=lambda outcome: outcome.request.index)
