"""All runs of the demo side by side."""

from __future__ import annotations

from collections.abc import Sequence

from demos.split.emulation import Emulation
from demos.split.runs import Run
from segue_device import Mode


def table(runs: Sequence[Run], emulation: Emulation) -> str:
    """Plain text; says what is emulated."""
    profile = emulation.profile
    lines = [
        "",
        f"Emulated device {emulation.name}: {1 / profile.prefill_per_token_s:.0f} prefill tok/s, "
        f"{1 / profile.decode_s:.0f} decode tok/s; emulated network, round trip "
        f"{emulation.network_rtt_s * 1e3:.0f} ms. Times in seconds.",
        "",
        f"{'prompt':<18}{'tokens':>7}{'mode':>13}{'TTFT':>8}{'TPOT':>8}{'max gap':>9}{'E2E':>8}"
        f"{'cloud':>7}{'device':>8}{'N*':>5}  same ids",
    ]
    for run in runs:
        for mode, result, ttft_s in (
            ("device only", run.device_only, run.ttft_s[Mode.ONLY_ON_DEVICE]),
            ("cloud only", run.cloud_only, run.ttft_s[Mode.ONLY_IN_CLOUD]),
            ("split", run.split, run.ttft_s[Mode.SPLIT]),
        ):
            times, usage = result.timings, result.usage
            is_split = mode == "split"
            lines.append(
                f"{run.name if mode == 'device only' else '':<18}"
                f"{usage.prompt_tokens if mode == 'device only' else '':>7}{mode:>13}"
                f"{ttft_s:>8.3f}{times.tpot_s or 0:>8.3f}{times.max_gap_s:>9.3f}"
                f"{times.e2e_s:>8.2f}{usage.cloud_tokens:>7}{usage.device_tokens:>8}"
                f"{run.n_star if is_split and run.n_star is not None else '':>5}"
                f"  {('yes' if run.identical else 'NO') if is_split else ''}"
            )
    return "\n".join(lines)
