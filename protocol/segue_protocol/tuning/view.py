"""All that the decision depends on. Durations in seconds, as the device sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

from segue_protocol.timeline import DeviceProfile

# Human-scale pace where nobody asks for another; a slower device is never outrun.
DEFAULT_PACE_S = 0.05

# Beside a round trip, what asking the cloud for more tokens may take.
REPLY_SLACK_S = 0.1


@dataclass(frozen=True, slots=True)
class CloudSpeed:
    """How this request would fare in the cloud under its present load."""

    # From the request's arrival to its first token: waiting and prefill.
    ttft_s: float
    # D: between two tokens of one request in the decode batch.
    decode_s: float
    # Of `ttft_s`, how long the request holds a prefill slot.
    prefill_s: float = 0.0
    # From the request's arrival to the list of what is worth keeping of its
    # prompt. None: with the first token.
    list_s: float | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """What the network adds to the cloud's TTFT: the upload of the prompt and a round trip."""

    added_s: float = 0.0
    # Standard deviation of `added_s`.
    deviation_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Targets:
    """What an answer should meet."""

    # None: as soon as may be.
    ttft_s: float | None = None
    # The slowest pace that is accepted, which is the cheapest, so it is the pace.
    # None: DEFAULT_PACE_S, or what the device can do.
    tpot_s: float | None = None
    # Of a refined prompt, relative to the whole one.
    quality_floor: float = 1.0


@dataclass(frozen=True, slots=True)
class TuningView:
    """One request. `device` None: a client without a model."""

    device: DeviceProfile | None
    cloud: CloudSpeed
    prompt_tokens: int
    max_tokens: int
    # Leading tokens of the prompt that the device need not prefill.
    cached_tokens: int = 0
    network: Network = field(default_factory=Network)
    targets: Targets = field(default_factory=Targets)
    # (keep ratio, quality) as measured; empty: no prompt is refined.
    quality: tuple[tuple[float, float], ...] = ()
    # False where the cloud was asked already.
    may_be_alone: bool = True
    # The margin: how many standard deviations of device and network are covered.
    margin_sigmas: float = 2.0
