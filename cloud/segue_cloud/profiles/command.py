"""`segue-cloud profile`: measure this machine and keep the result."""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path

import torch

from segue_cloud.config import ProfileConfig
from segue_cloud.engine.loading import load_engine
from segue_cloud.profiles.base import CloudProfile, Fit
from segue_cloud.profiles.measure import measure_profile


def main(config: ProfileConfig) -> int:
    """Measure, store if told where, print; returns the exit status."""
    engine = load_engine(Path(config.model), dtype=config.dtype, threads=config.threads)
    profile = dataclasses.replace(
        measure_profile(engine, source="measured with segue-cloud profile"),
        dtype=config.dtype,
        threads=config.threads,
        machine=_machine(),
    )
    profile.validate()
    if config.out:
        profile.save(Path(config.out))
    print(json.dumps(profile.to_json()) if config.json else _for_humans(profile))
    return 0


def _machine() -> dict[str, str]:
    """What the speed depends on; never a host's name."""
    return {
        "processor": _processor(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "torch": str(torch.__version__),
        "capability": str(torch.backends.cpu.get_cpu_capability()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _for_humans(profile: CloudProfile) -> str:
    prefill, decode = profile.prefill, profile.decode[0]
    lines = [
        f"{profile.name}, {profile.dtype}, {profile.threads} threads",
        f"prefill  {prefill.base_s * 1e3:.3f} ms + {prefill.per_token_s * 1e6:.3f} us a token + "
        f"{prefill.per_token2_s * 1e9:.4f} ns a token squared; {_quality(profile.prefill_fit)}",
        f"decode   {decode.base_s * 1e3:.3f} ms + {decode.per_context_token_s * 1e6:.4f} us a "
        f"context token + {decode.per_request_s * 1e6:.2f} us a request; "
        f"{_quality(profile.decode_fit)}",
    ]
    return "\n".join(lines)


def _quality(fit: Fit | None) -> str:
    assert fit is not None
    return (
        f"{fit.samples} samples, relative deviation {fit.relative_rms:.1%} RMS, "
        f"{fit.relative_max:.1%} at most"
    )
