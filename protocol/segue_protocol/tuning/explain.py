"""The decision in words, with the figures that made it."""

from __future__ import annotations

from segue_protocol.tuning.decide import (
    Band,
    alone_ttft_s,
    bridge_of,
    cloud_ttft_s,
    split_pace_s,
)
from segue_protocol.tuning.decision import Binding, Decision, Place
from segue_protocol.tuning.view import TuningView


def explain(view: TuningView, decision: Decision) -> str:
    """Which constraint binds in `decision`, which :func:`decide` made of `view`."""
    told = _alone(view, decision) if decision.place is Place.DEVICE else _with_cloud(view, decision)
    return " ".join([*told, *_margin(view)])


def _alone(view: TuningView, decision: Decision) -> list[str]:
    target_s, cloud_s = view.targets.ttft_s, cloud_ttft_s(view)
    if target_s is not None and decision.ttft_s <= target_s:
        why = f"within the target of {_s(target_s)}"
    else:
        why = f"no later than the cloud's, expected after {_s(cloud_s)}"
    own_s = _s(decision.ttft_s)
    return [f"The device answers alone: its own first token is there after {own_s}, {why}."]


def _with_cloud(view: TuningView, decision: Decision) -> list[str]:
    told = [_BINDING[decision.binding](view, decision)]
    target_s = view.targets.ttft_s
    if target_s is not None and decision.ttft_s > target_s:
        told.append(
            f"The TTFT target of {_s(target_s)} cannot be met: the cloud's first token is "
            f"expected after {_s(decision.ttft_s)}."
        )
    return told


def _ttft(view: TuningView, decision: Decision) -> str:
    assert view.device is not None
    return (
        f"The cloud makes 1 token, for the sake of the TTFT alone: {_s(decision.ttft_s)} against "
        f"{_s(alone_ttft_s(view, view.device))} on the device, which then goes on without a stall."
    )


def _device_prefill(view: TuningView, decision: Decision) -> str:
    assert view.device is not None
    found = bridge_of(view, view.device, decision.keep_ratio)
    refined = f" of {decision.keep_ratio:.0%} of the prompt" if decision.keep_ratio < 1 else ""
    return (
        f"The cloud makes {decision.cloud_tokens} tokens, no stall binds: at its first token, "
        f"after {_s(decision.ttft_s)}, the device's prefill{refined} takes another "
        f"{_s(found.prefill_left_s)}, absorbing {_s(found.absorb_per_token_s)} a token and the "
        f"hand-over {_s(view.device.handover_s)}, while a token is shown every "
        f"{_s(decision.pace_s)}."
    )


def _quality(view: TuningView, decision: Decision) -> str:
    return (
        f"{_device_prefill(view, decision)} Keeping less of the prompt would need fewer, but its "
        f"quality is below the floor of {view.targets.quality_floor:g}."
    )


def _device_decode(view: TuningView, decision: Decision) -> str:
    assert view.device is not None
    return (
        f"The cloud makes the whole answer: the device takes {_s(view.device.decode_s)} a token, "
        f"more than the target of {_s(view.targets.tpot_s or 0.0)}."
    )


def _pace(view: TuningView, decision: Decision) -> str:
    assert view.device is not None
    absorb_s = bridge_of(view, view.device, 1.0).absorb_per_token_s
    return (
        "The cloud makes the whole answer: with a token shown every "
        f"{_s(split_pace_s(view, view.device))}, {_s(absorb_s)} to absorb one on the device and "
        f"{_s(view.cloud.decode_s)} to make one in the cloud the device never catches up."
    )


def _length(view: TuningView, decision: Decision) -> str:
    return (
        f"The cloud makes the whole answer: it has {view.max_tokens} tokens at most and is over "
        "before the device is ready."
    )


def _no_device(view: TuningView, decision: Decision) -> str:
    return "The cloud makes the whole answer: there is no device model."


_BINDING = {
    Binding.TTFT: _ttft,
    Binding.DEVICE_PREFILL: _device_prefill,
    Binding.QUALITY: _quality,
    Binding.DEVICE_DECODE: _device_decode,
    Binding.PACE: _pace,
    Binding.LENGTH: _length,
    Binding.NO_DEVICE: _no_device,
}


def _margin(view: TuningView) -> list[str]:
    band = Band.of(view)
    parts = []
    if band.device > 0:
        parts.append(f"a device up to {band.device:.0%} slower than its profile")
    if band.network_s > 0:
        parts.append(f"a network up to {_s(band.network_s)} off")
    return [f"Margin: {' and '.join(parts)}."] if parts else []


def _s(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"
