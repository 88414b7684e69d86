"""What the device's engine does next: prefill, absorb, take over, decode or wait.

A pure step function over explicit state, run by the real loop and by tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Work(Enum):
    """The engine's next job."""

    PREFILL = auto()  # the next chunk of the prompt
    ABSORB = auto()  # every received token that is not in the KV cache yet, at once
    TAKE_OVER = auto()  # become the writer
    DECODE = auto()  # make one token
    WAIT = auto()  # for the cloud, or for `wait_s` of its silence
    STOP = auto()


@dataclass(frozen=True, slots=True)
class View:
    """All that the decision depends on. Times are seconds on the device's clock."""

    prefill_left_tokens: int
    absorbed_tokens: int
    log_tokens: int
    credit_through: int
    device_writes: bool
    cloud_alive: bool
    takeover_forced: bool
    over: bool
    # The app sleeps, or the device is to rest while the cloud can go on.
    paused: bool
    # Since the last sign of the cloud's decoding (or the request itself).
    silence_s: float
    # How long a caught-up device waits for a cloud that still owes tokens.
    patience_s: float


def next_work(view: View) -> Work:
    """Decide. Takeover is normal once the log has reached the credit and the lag is zero.

    It is early when the cloud is gone, when it is asked for, when the device is
    ready before the cloud's first token, or when the cloud owes tokens for
    longer than `patience_s`.
    """
    if view.over:
        return Work.STOP
    if view.paused:
        return Work.WAIT
    if view.prefill_left_tokens > 0:
        return Work.PREFILL
    if view.absorbed_tokens < view.log_tokens:
        return Work.ABSORB
    if view.device_writes:
        return Work.DECODE
    nothing_owed = view.log_tokens >= view.credit_through
    too_slow = view.log_tokens == 0 or view.silence_s >= view.patience_s
    if nothing_owed or not view.cloud_alive or view.takeover_forced or too_slow:
        return Work.TAKE_OVER
    return Work.WAIT


def wait_s(view: View) -> float | None:
    """How long Work.WAIT lasts if nothing changes; None: for ever."""
    return None if view.paused else max(0.0, view.patience_s - view.silence_s)
