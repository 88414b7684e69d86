"""The arithmetic of the hand-over, for both sides: pure functions, units in names.

The device prefills the prompt while the cloud answers; then it absorbs the
cloud's tokens like prompt and takes over. With ``show_interval_s`` the time
between two tokens shown to the user (tau), ``absorb_per_token_s`` what one
received token costs the device (b), ``prefill_left_s`` what is left of its
prefill when the first token arrives and ``handover_s`` the overhead (delta),
nothing visible stalls iff

    cloud_tokens * tau >= prefill_left_s + b * cloud_tokens + delta

and N* is the smallest such number of cloud tokens. Where attention makes every
further token dearer (c), absorbing costs b * cloud_tokens + c * cloud_tokens^2.
All times are counted on the device's clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from segue_protocol.errors import InvalidRequest
from segue_protocol.wire import public

MAX_CLOUD_TOKENS = 2**31 - 1
"""No answer is longer; a larger N* is told as unbounded."""


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """How fast a device is, as measured by it.

    Prefill of n tokens takes base + per_token n + per_token2 n^2 seconds,
    decoding one token `decode_s`, the hand-over itself `handover_s`. Real times
    differ from these by `relative_error` (standard deviation; 0: not known).
    """

    prefill_base_s: float
    prefill_per_token_s: float
    prefill_per_token2_s: float
    decode_s: float
    handover_s: float
    relative_error: float = 0.0

    def validate(self) -> None:
        """Raise InvalidRequest unless all are finite and >= 0 and decoding takes time."""
        for each in fields(self):
            value = getattr(self, each.name)
            if not math.isfinite(value) or value < 0:
                raise InvalidRequest(
                    f"{each.name} of the device profile is {value}, expected a finite number "
                    ">= 0; measure the device again"
                )
        if self.decode_s == 0:
            raise InvalidRequest(
                "decode_s of the device profile is 0, expected the seconds one token takes; "
                "measure the device again"
            )

    def to_wire(self) -> public.DeviceProfile:
        """The message with the same fields."""
        return public.DeviceProfile(
            **{each.name: getattr(self, each.name) for each in fields(self)}
        )

    @classmethod
    def from_wire(cls, message: public.DeviceProfile) -> DeviceProfile:
        """The profile in `message`, not validated."""
        return cls(
            prefill_base_s=message.prefill_base_s,
            prefill_per_token_s=message.prefill_per_token_s,
            prefill_per_token2_s=message.prefill_per_token2_s,
            decode_s=message.decode_s,
            handover_s=message.handover_s,
            relative_error=message.relative_error,
        )

    def prefill_s(self, tokens: float) -> float:
        """Seconds to prefill `tokens` from an empty cache; 0 for none."""
        if tokens <= 0:
            return 0.0
        per_token_s = self.prefill_per_token_s + self.prefill_per_token2_s * tokens
        return self.prefill_base_s + per_token_s * tokens

    def prefill_left_s(self, tokens: int, done_tokens: int) -> float:
        """Seconds to prefill `tokens` of which the first `done_tokens` are in the cache."""
        return max(0.0, self.prefill_s(tokens) - self.prefill_s(done_tokens))

    def absorb_per_token_s(self, cached_tokens: int) -> float:
        """Seconds one more prefilled token costs behind `cached_tokens`: the slope of prefill_s."""
        return self.prefill_per_token_s + 2 * self.prefill_per_token2_s * cached_tokens


def ready_time_s(
    *,
    first_token_s: float,
    prefill_left_s: float,
    cloud_tokens: int,
    absorb_per_token_s: float,
    handover_s: float,
) -> float:
    """When the device can show a token of its own.

    `first_token_s` is when the cloud's first token arrived; the result is on
    the same clock.
    """
    return first_token_s + prefill_left_s + cloud_tokens * absorb_per_token_s + handover_s


def stall_free(
    *,
    cloud_tokens: int,
    prefill_left_s: float,
    show_interval_s: float,
    absorb_per_token_s: float,
    handover_s: float,
    absorb_per_token2_s: float = 0.0,
) -> bool:
    """Whether showing `cloud_tokens` lasts until the device is ready."""
    absorb_s = absorb_per_token_s + absorb_per_token2_s * cloud_tokens
    return cloud_tokens * (show_interval_s - absorb_s) >= prefill_left_s + handover_s


def n_star(
    *,
    prefill_left_s: float,
    show_interval_s: float,
    absorb_per_token_s: float,
    handover_s: float,
    absorb_per_token2_s: float = 0.0,
) -> int | None:
    """The fewest cloud tokens without a stall: ceil((prefill_left_s + delta) / (tau - b)).

    With c (`absorb_per_token2_s`) it is the smaller root of the quadratic. At
    least 1, since the first token is always the cloud's. None means unbounded:
    tokens are shown at least as fast as the device absorbs them (tau <= b, or
    c outruns it first), so it never catches up at this pace and the cloud must
    stay or the pace slow down; or N* exceeds MAX_CLOUD_TOKENS.
    """

    def enough(cloud_tokens: int) -> bool:
        return stall_free(
            cloud_tokens=cloud_tokens,
            prefill_left_s=prefill_left_s,
            show_interval_s=show_interval_s,
            absorb_per_token_s=absorb_per_token_s,
            handover_s=handover_s,
            absorb_per_token2_s=absorb_per_token2_s,
        )

    if enough(1):
        return 1
    gained_s = show_interval_s - absorb_per_token_s
    needed_s = prefill_left_s + handover_s
    squared = gained_s * gained_s - 4 * absorb_per_token2_s * needed_s
    if gained_s <= 0 or squared < 0:
        return None
    root = 2 * needed_s / (gained_s + math.sqrt(squared))
    if not root <= MAX_CLOUD_TOKENS:  # NaN of an overflow is none either
        return None
    tokens = max(1, math.ceil(root))
    # The root is rounded; N* is defined by the condition itself.
    while tokens > 1 and enough(tokens - 1):
        tokens -= 1
    for candidate in (tokens, tokens + 1, tokens + 2):
        if enough(candidate):
            return candidate
    return None


def n_star_without_refinement(
    profile: DeviceProfile, *, prompt_tokens: int, first_token_s: float, show_interval_s: float
) -> int | None:
    """N* when the device prefills the whole prompt, beginning at time 0.

    `first_token_s` counts from there. None as in :func:`n_star`.
    """
    return n_star(
        prefill_left_s=max(0.0, profile.prefill_s(prompt_tokens) - first_token_s),
        show_interval_s=show_interval_s,
        absorb_per_token_s=profile.absorb_per_token_s(prompt_tokens),
        handover_s=profile.handover_s,
    )


def n_star_waiting_for_list(
    profile: DeviceProfile, *, kept_tokens: int, show_interval_s: float
) -> int | None:
    """N* if the device began only when the kept list arrives, with the first token.

    The alternative Segue does not take, for comparison. None as in :func:`n_star`.
    """
    return n_star(
        prefill_left_s=profile.prefill_s(kept_tokens),
        show_interval_s=show_interval_s,
        absorb_per_token_s=profile.absorb_per_token_s(kept_tokens),
        handover_s=profile.handover_s,
    )


def buffer_never_drains(
    *, buffered_tokens: float, remaining_tokens: float, show_interval_s: float, decode_s: float
) -> bool:
    """Whether the device alone feeds the display to the end: B >= R (1 - tau/d).

    `remaining_tokens` R is all that is still to be shown, the
    `buffered_tokens` B included; d is `decode_s`.
    """
    return buffered_tokens * decode_s >= remaining_tokens * (decode_s - show_interval_s)
