"""First advice for an answer: how many cloud tokens, at which pace.

The cloud's own time to first token is learnt from what it measures; the number
of tokens follows from the device's profile (FIELD 1, our model of P/D-Device).
"""

from __future__ import annotations

from dataclasses import dataclass

from segue_protocol.timeline import DeviceProfile, n_star
from segue_protocol.wire import public

# Human-scale pace to start from; a slower device is never outrun.
DEFAULT_PACE_S = 0.05

# What the network adds to the TTFT measured here. Erring on this side costs one
# extension by the device; erring on the other costs tokens nobody needed.
NETWORK_S = 0.05


@dataclass(slots=True)
class TtftEstimate:
    """Running estimate of the cloud's TTFT: a constant plus a time per token.

    Plain exponential averages: the aim is an advice that is right within a few
    tokens; the device corrects it by extending its credit.
    """

    base_s: float = 0.02
    per_token_s: float = 2e-4
    weight: float = 0.2

    def observe(
        self, prompt_tokens: int, waiting_s: float, prefill_s: float, cached_tokens: int = 0
    ) -> None:
        """Learn from one request; `cached_tokens` of its prompt were not computed."""
        computed = prompt_tokens - cached_tokens
        # In the prefill of a few tokens behind many cached ones the constant part
        # dominates: it says nothing about the time per token.
        if computed >= cached_tokens:
            self.per_token_s += self.weight * (prefill_s / computed - self.per_token_s)
        self.base_s += self.weight * (waiting_s - self.base_s)

    def seconds(self, prompt_tokens: int) -> float:
        return self.base_s + self.per_token_s * prompt_tokens


def advise(
    profile: DeviceProfile | None,
    prompt_tokens: int,
    cached_tokens: int,
    max_tokens: int,
    ttft_s: float,
) -> public.Advice:
    """Advice {N, r, pace} for one request.

    Without a profile, or with a device too slow ever to catch up at this
    pace, the cloud offers the whole answer.
    """
    if profile is None:
        return public.Advice(
            cloud_tokens=max_tokens, keep_ratio=1.0, pace_s=DEFAULT_PACE_S, ttft_s=ttft_s
        )
    pace_s = max(DEFAULT_PACE_S, profile.decode_s)
    prefill_s = profile.prefill_left_s(prompt_tokens, cached_tokens)
    needed = n_star(
        prefill_left_s=max(0.0, prefill_s - ttft_s - NETWORK_S),
        show_interval_s=pace_s,
        absorb_per_token_s=profile.absorb_per_token_s(prompt_tokens),
        handover_s=profile.handover_s,
    )
    cloud_tokens = max_tokens if needed is None else min(needed, max_tokens)
    return public.Advice(cloud_tokens=cloud_tokens, keep_ratio=1.0, pace_s=pace_s, ttft_s=ttft_s)
