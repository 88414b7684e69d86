"""When not to split: other workloads and devices, and the figures that say why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from demos.trace.case import Case

POLICIES = ("device_only", "cloud_pd", "split")


@dataclass(frozen=True)
class Limit:
    """A setting in which splitting may not pay."""

    name: str
    case: Case
    trace: str


def limits(case: Case, code_trace: str) -> list[Limit]:
    """Beside `case` itself: short outputs, slow, slowly decoding and fast devices."""

    def device(name: str, **changes: Any) -> Limit:
        changed = replace(case, name=name, device=replace(case.device, **changes))
        return Limit(name, changed, case.trace)

    return [
        Limit(
            "short outputs (code trace)", replace(case, name="code", trace=code_trace), code_trace
        ),
        device("slow device (100 prefill, 20 decode tok/s)", prefill_per_token_s=1 / 100),
        device("very slow prefill (15 tok/s)", prefill_per_token_s=1 / 15),
        device("slow decoding (800 prefill, 5 decode tok/s)", decode_s=1 / 5),
        device("fast device (8,000 prefill, 20 decode tok/s)", prefill_per_token_s=1 / 8000),
    ]


def judge(rows: Mapping[str, Mapping[str, Any]], case: Case) -> dict[str, Any]:
    """The figures that decide, and in words what they say of splitting here."""
    alone, whole, split = (rows[name] for name in POLICIES)
    found = {
        "device_ttft_p50_s": alone["ttft_p50_s"],
        "split_ttft_p50_s": split["ttft_p50_s"],
        "split_tpot_s": split["tpot_mean_s"],
        "cloud_tokens": split["cloud_tokens"],
        "cloud_tokens_whole": whole["cloud_tokens"],
        "slot_seconds_saved": whole["slot_seconds"] / split["slot_seconds"],
        "whole_answers": 1 - split["taken_over"],
        "stalled_answers": split["stalled_answers"],
        "rps_gain": _ratio(split.get("rps_per_instance"), whole.get("rps_per_instance")),
        "binding": split.get("binding"),
    }
    return {**found, "says": " ".join(_sentences(found, case))}


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _sentences(found: Mapping[str, Any], case: Case) -> list[str]:
    """Why not to split, or that nothing speaks against it."""
    against = []
    if found["device_ttft_p50_s"] <= case.targets.ttft_s:
        against.append(
            f"The device alone shows its first token after {found['device_ttft_p50_s']:.2f} s at "
            f"the median, within the target of {case.targets.ttft_s:g} s: most answers need no "
            "cloud."
        )
    if found["whole_answers"] > 0.5:
        against.append(
            f"{found['whole_answers']:.0%} of the answers end before the device is ready: the "
            "cloud makes them whole and the device prefills in vain."
        )
    elif found["slot_seconds_saved"] < 2:
        against.append(
            f"Slot time shrinks {found['slot_seconds_saved']:.1f} times only: prefill, which "
            "splitting does not spare the cloud, is most of it."
        )
    if found["split_tpot_s"] > case.targets.tpot_s:
        against.append(
            f"A token is shown every {found['split_tpot_s'] * 1e3:.0f} ms, above the target of "
            f"{case.targets.tpot_s * 1e3:.0f} ms: the device decodes too slowly."
        )
    if found["stalled_answers"] > 1 - case.targets.attainment:
        against.append(
            f"{found['stalled_answers']:.0%} of the answers stop for more than "
            f"{case.targets.stall_s * 1e3:.0f} ms between two tokens."
        )
    gain = found["rps_gain"]
    if gain is not None and gain < 1.5:
        prefill = ": the load is one of prefill" if found["binding"] == "prefill slots" else ""
        against.append(
            f"An instance serves {gain:.2f} times as many requests, bound by "
            f"{found['binding']}{prefill}."
        )
    return against or ["Nothing measured here speaks against splitting."]
