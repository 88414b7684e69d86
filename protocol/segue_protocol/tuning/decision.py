"""What is decided for one answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Place(str, Enum):
    """Who makes the answer."""

    DEVICE = "device"
    SPLIT = "split"
    CLOUD = "cloud"


class Binding(str, Enum):
    """What keeps the cloud's slot time from being shorter.

    NOTHING: it is zero. TTFT: the device alone would be late with the first
    token, and only with that. DEVICE_PREFILL: the cloud must bridge the device's
    prefill. QUALITY: so it must, and a smaller part of the prompt would do but for
    the quality floor. Whole answers from the cloud: DEVICE_DECODE (slower than
    the target pace), PACE (shown faster than the device absorbs, or not slower
    than the cloud makes them), LENGTH (over before the device is ready), NO_DEVICE.
    """

    NOTHING = "nothing"
    TTFT = "ttft"
    DEVICE_PREFILL = "device_prefill"
    QUALITY = "quality"
    DEVICE_DECODE = "device_decode"
    PACE = "pace"
    LENGTH = "length"
    NO_DEVICE = "no_device"


@dataclass(frozen=True, slots=True)
class Decision:
    """Place, N, r and pace of one answer.

    `cloud_tokens` is N with the margin: enough for the slowest device that is
    reckoned with. A device that extends its credit as its prefill goes on begins
    with `first_credit`, which the quickest one needs, too.
    """

    place: Place
    cloud_tokens: int
    first_credit: int
    keep_ratio: float
    pace_s: float
    # What it costs the cloud: the prefill slot and N places in a decode batch.
    slot_s: float
    # When the first token is expected, without a margin.
    ttft_s: float
    binding: Binding
