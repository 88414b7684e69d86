"""What an app sees of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Literal

from segue_device.timings import Timings
from segue_device.token_log import Source
from segue_protocol.wire import public


@dataclass(frozen=True, slots=True)
class Started:
    """The cloud has taken the request. `cloud_tokens` is its advice for N.

    `generation_id` with `resume_token` names the answer to the cloud; the
    token is a secret of this device.
    """

    type: ClassVar[Literal["started"]] = "started"
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

    type: ClassVar[Literal["token"]] = "token"
    index: int | None
    token_id: int | None
    text: str
    source: Source
    # Natural logarithm of its probability, if the request asked for logprobs.
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Refinement:
    """The cloud found part of the prompt dispensable; this device prefills the rest."""

    type: ClassVar[Literal["refinement"]] = "refinement"
    kept_tokens: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """The device's own prefill, in tokens of the prompt that take part."""

    type: ClassVar[Literal["prefill_progress"]] = "prefill_progress"
    done_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Takeover:
    """From output index `index` on the device writes. `early`: before the credit was used."""

    type: ClassVar[Literal["takeover"]] = "takeover"
    index: int
    early: bool


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The stream broke; the device tries to resume it while it goes on by itself."""

    type: ClassVar[Literal["reconnecting"]] = "reconnecting"
    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The stream goes on; the cloud sends from `next_index`."""

    type: ClassVar[Literal["resumed"]] = "resumed"
    next_index: int


@dataclass(frozen=True, slots=True)
class Fallback:
    """One side is gone; the answer goes on at the other."""

    type: ClassVar[Literal["fallback"]] = "fallback"
    reason: str


@dataclass(frozen=True, slots=True)
class Warning:
    """Something to know or to fix; the answer goes on."""

    type: ClassVar[Literal["warning"]] = "warning"
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an answer is at one moment, in tokens; see `AnswerStream.progress`."""

    # In the log, whoever made them, and of these those that were shown.
    received_tokens: int
    shown_tokens: int
    # Of the prompt that takes part: in the device's cache, and all of it.
    prefilled_tokens: int
    prompt_tokens: int
    # Of what the cloud made, not yet in the device's cache; 0 once the device writes.
    lag_tokens: int


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
    # Of the prompt, what takes part on the device; None: the cloud did not refine it.
    kept_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer."""

    token_ids: Sequence[int]
    text: str
    # One a token, if the request asked for them; None where its maker told none.
    logprobs: Sequence[float | None] | None
    finish_reason: FinishReason
    # What the answer was sampled with; asked with it, the same answer comes again.
    seed: int
    usage: Usage
    timings: Timings
    takeover_index: int | None
    # Smallest margin of the tokens the device sampled (inf if none).
    min_margin: float
    # The cloud's own account, if it arrived.
    cloud: public.Finish | None
    # Why so many tokens of the cloud, or none, in words; "" if no tuner was asked.
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """Always the last event of an answer that did not fail."""

    type: ClassVar[Literal["done"]] = "done"
    result: Result


Event = (
    Started
    | Token
    | Refinement
    | PrefillProgress
    | Takeover
    | Reconnecting
    | Resumed
    | Fallback
    | Warning
    | Done
)
