"""The decision: the least cloud slot time that meets TTFT, pace, no stall and quality.

N is a closed form for a given keep ratio, and there are few ratios: they are
all tried. Slot time grows with N alone, so the smallest N wins, at equal N the
better quality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from segue_protocol.timeline import DeviceProfile
from segue_protocol.tuning.bridge import Bridge, bridge
from segue_protocol.tuning.decision import Binding, Decision, Place
from segue_protocol.tuning.view import DEFAULT_PACE_S, REPLY_SLACK_S, TuningView

# However unsure a device is of its speed, it is never reckoned as standing still.
MAX_BAND = 0.5


@dataclass(frozen=True, slots=True)
class Band:
    """How far times may lie from what is expected: device's, relative, and network's."""

    device: float
    network_s: float

    @classmethod
    def of(cls, view: TuningView) -> Band:
        error = view.device.relative_error if view.device is not None else 0.0
        return cls(
            device=min(MAX_BAND, view.margin_sigmas * error),
            network_s=view.margin_sigmas * view.network.deviation_s,
        )


def decide(view: TuningView) -> Decision:
    """Decide about one request. The view is not checked: profile and table were."""
    device, targets = view.device, view.targets
    if device is None:
        return _whole_from_cloud(view, Binding.NO_DEVICE)
    too_slow = targets.tpot_s is not None and device.decode_s > targets.tpot_s
    if view.may_be_alone and not too_slow:
        alone_s = alone_ttft_s(view, device)
        if alone_s <= max(targets.ttft_s or 0.0, cloud_ttft_s(view)):
            pace_s = device.decode_s
            return Decision(Place.DEVICE, 0, 0, 1.0, pace_s, 0.0, alone_s, Binding.NOTHING)
    if too_slow:
        return _whole_from_cloud(view, Binding.DEVICE_DECODE)
    return _split(view, device)


def cloud_ttft_s(view: TuningView) -> float:
    """When the cloud's first token is expected on the device."""
    return view.network.added_s + view.cloud.ttft_s


def alone_ttft_s(view: TuningView, device: DeviceProfile) -> float:
    """When the device's own first token is there, for the slowest device reckoned with."""
    prefill_s = device.prefill_left_s(view.prompt_tokens, view.cached_tokens)
    return (1 + Band.of(view).device) * (prefill_s + device.decode_s)


def split_pace_s(view: TuningView, device: DeviceProfile) -> float:
    """The slowest accepted pace; never faster than either side makes tokens."""
    wanted_s = view.targets.tpot_s or DEFAULT_PACE_S
    return max(wanted_s, device.decode_s, view.cloud.decode_s)


def bridge_of(
    view: TuningView, device: DeviceProfile, keep_ratio: float, *, side: int = 1
) -> Bridge:
    """N at one keep ratio, at the slow end of the band (`side` 1) or the quick one (-1).

    An early first token is the hard case: the device has had less time before it.
    Between the ends, rounding to whole tokens may cost one that the list would
    have left out.
    """
    band = Band.of(view)
    early_s = view.network.added_s - side * band.network_s
    list_s = view.cloud.list_s if view.cloud.list_s is not None else view.cloud.ttft_s
    return bridge(
        device,
        slow=1 + side * band.device,
        prompt_tokens=view.prompt_tokens,
        cached_tokens=view.cached_tokens,
        keep_ratio=keep_ratio,
        list_at_s=max(0.0, early_s + list_s),
        begun_more=int(side > 0 and (band.device > 0 or band.network_s > 0)),
        first_token_s=max(0.0, early_s + view.cloud.ttft_s),
        cloud_decode_s=view.cloud.decode_s,
        pace_s=split_pace_s(view, device),
    )


def _split(view: TuningView, device: DeviceProfile) -> Decision:
    floor = view.targets.quality_floor
    ratio, least = 1.0, _tokens(view, device, 1.0)
    forbidden = math.inf
    for candidate, quality in sorted(view.quality, reverse=True):
        if candidate >= 1:
            continue
        tokens = _tokens(view, device, candidate)
        if quality < floor:
            forbidden = min(forbidden, tokens)
        elif tokens < least:
            ratio, least = candidate, tokens
    if least == math.inf:
        return _whole_from_cloud(view, Binding.PACE)
    if least >= view.max_tokens:
        return _whole_from_cloud(view, Binding.LENGTH)
    tokens, pace_s = int(least), split_pace_s(view, device)
    if tokens == 1:
        binding = Binding.TTFT
    else:
        binding = Binding.QUALITY if forbidden < least else Binding.DEVICE_PREFILL
    return Decision(
        Place.SPLIT,
        tokens,
        _first_credit(view, device, ratio, tokens, pace_s),
        ratio,
        pace_s,
        slot_s(view, tokens),
        cloud_ttft_s(view),
        binding,
    )


def _tokens(view: TuningView, device: DeviceProfile, keep_ratio: float) -> float:
    """N at one keep ratio; infinite where none is enough."""
    needed = bridge_of(view, device, keep_ratio).tokens
    return math.inf if needed is None else needed


def _first_credit(
    view: TuningView, device: DeviceProfile, keep_ratio: float, tokens: int, pace_s: float
) -> int:
    """What the quickest device needs, too, and what lasts until an extension is there."""
    quickest = bridge_of(view, device, keep_ratio, side=-1).tokens
    asking = math.ceil((view.network.added_s + REPLY_SLACK_S) / pace_s)
    return min(tokens, max(asking, quickest if quickest is not None else tokens))


def slot_s(view: TuningView, tokens: int) -> float:
    """Seconds of the cloud's slots that N tokens take."""
    return view.cloud.prefill_s + tokens * view.cloud.decode_s


def _whole_from_cloud(view: TuningView, binding: Binding) -> Decision:
    tokens = view.max_tokens
    return Decision(
        Place.CLOUD,
        tokens,
        tokens,
        1.0,
        max(view.targets.tpot_s or DEFAULT_PACE_S, view.cloud.decode_s),
        slot_s(view, tokens),
        cloud_ttft_s(view),
        binding,
    )
