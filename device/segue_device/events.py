"""What an app sees of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from segue_device.timings import Timings
from segue_device.token_log import Source
from segue_protocol.wire import public


@dataclass(frozen=True, slots=True)
class Started:
    """The cloud has taken the request. `cloud_tokens` is its advice for N.

    `generation_id` with `resume_token` names the answer to the cloud; the
    token is a secret of this device.
    """

    generation_id: str
    resume_token: bytes
    prompt_tokens: int
    credit_through: int
    cloud_tokens: int


@dataclass(frozen=True, slots=True)
class Token:
    """One token, at its paced moment. `text` may be empty or belong to earlier ids too.

    `index` is None for text that was held back until the end.
    """

    index: int | None
    token_id: int | None
    text: str
    source: Source


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """The device's own prefill, in tokens of the prompt."""

    done_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Takeover:
    """From output index `index` on the device writes. `early`: before the credit was used."""

    index: int
    early: bool


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The stream broke; the device tries to resume it while it goes on by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The stream goes on; the cloud sends from `next_index`."""

    next_index: int


@dataclass(frozen=True, slots=True)
class Fallback:
    """One side is gone; the answer goes on at the other."""

    reason: str


@dataclass(frozen=True, slots=True)
class Warning:
    """Something to know or to fix; the answer goes on."""

    code: str
    message: str


class FinishReason(str, Enum):
    """Why an answer is over."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Usage:
    """Who made what. `cloud_tokens + device_tokens` is the answer's length."""

    prompt_tokens: int
    # Of the prompt, in the device's KV cache from the turn before.
    cached_tokens: int
    cloud_tokens: int
    device_tokens: int
    # Made by the cloud, arrived after the takeover.
    discarded_tokens: int


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer."""

    token_ids: Sequence[int]
    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    takeover_index: int | None
    # Smallest margin of the tokens the device sampled (inf if none).
    min_margin: float
    # The cloud's own account, if it arrived.
    cloud: public.Finish | None


@dataclass(frozen=True, slots=True)
class Done:
    """Always the last event of an answer that did not fail."""

    result: Result


Event = (
    Started
    | Token
    | PrefillProgress
    | Takeover
    | Reconnecting
    | Resumed
    | Fallback
    | Warning
    | Done
)
