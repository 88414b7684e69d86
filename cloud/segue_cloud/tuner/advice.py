"""Advice for an answer: the tuner's decision on what the gateway knows of both sides.

The device tells its profile and its network; how quick the cloud is, the
gateway learns from what it measures. The decision itself is in
:mod:`segue_protocol.tuning`, where the device has it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segue_protocol.timeline import DeviceProfile
from segue_protocol.tuning import CloudSpeed, Network, Targets, TuningView, decide, explain
from segue_protocol.wire import public

# What the network adds to the TTFT measured here, where the device does not know it yet.
DEFAULT_NETWORK = Network(added_s=0.05)

# Fewer tokens of a decode batch say little about the time of one.
MIN_DECODED_TOKENS = 4


@dataclass(slots=True)
class CloudEstimate:
    """Running estimate of the cloud's speed under its present load.

    TTFT is a constant (waiting) plus a time per token (prefill); decoding a time
    per token. Plain exponential averages: the aim is an advice that is right within
    a few tokens; the device corrects it by extending its credit.
    """

    base_s: float = 0.02
    per_token_s: float = 2e-4
    decode_s: float = 0.02
    # When the list of a refined prompt is made, of its prefill.
    list_share: float = 0.5
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

    def observe_list(self, list_s: float, prefill_s: float) -> None:
        """Learn from one prompt that was refined."""
        self.list_share += self.weight * (list_s / prefill_s - self.list_share)

    def observe_decode(self, tokens: int, slot_s: float) -> None:
        """Learn from `tokens` that took a place in a decode batch for `slot_s`."""
        if tokens >= MIN_DECODED_TOKENS:
            self.decode_s += self.weight * (slot_s / tokens - self.decode_s)

    def speed(self, prompt_tokens: int) -> CloudSpeed:
        """How a prompt of this length would fare now."""
        prefill_s = self.per_token_s * prompt_tokens
        return CloudSpeed(
            ttft_s=self.base_s + prefill_s,
            decode_s=self.decode_s,
            prefill_s=prefill_s,
            list_s=self.base_s + self.list_share * prefill_s,
        )


def advise(
    device: DeviceProfile | None,
    cloud: CloudSpeed,
    *,
    prompt_tokens: int,
    cached_tokens: int,
    max_tokens: int,
    network: Network | None,
    targets: Targets,
    quality: Sequence[tuple[float, float]] = (),
) -> public.Advice:
    """Advice {N, r, pace} for one request; N is what its device begins with."""
    view = TuningView(
        device=device,
        cloud=cloud,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        cached_tokens=cached_tokens,
        network=network or DEFAULT_NETWORK,
        targets=targets,
        quality=tuple(quality),
        may_be_alone=False,
    )
    decision = decide(view)
    return public.Advice(
        cloud_tokens=decision.first_credit,
        keep_ratio=decision.keep_ratio,
        pace_s=decision.pace_s,
        ttft_s=cloud.ttft_s,
        explanation=explain(view, decision),
    )
