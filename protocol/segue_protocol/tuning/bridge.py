"""N for a given pace and keep ratio: the closed form, and what goes into it.

The device prefills from t = 0. At the time of the list it has begun `begun`
tokens of the prompt; of the rest it prefills the part r. With `n` tokens to
prefill in all, the first cloud token at t1 and all its times longer by `slow`,

    left = max(0, slow (P(n) - P(cached)) - t1)

is what is left of its prefill then, and N follows from the no-stall condition
of :mod:`segue_protocol.timeline`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from segue_protocol.timeline import DeviceProfile, n_star


@dataclass(frozen=True, slots=True)
class Bridge:
    """What the cloud's tokens must last for. `tokens` is N, None if no number is enough."""

    tokens: int | None
    prefill_left_s: float
    absorb_per_token_s: float


def bridge(
    device: DeviceProfile,
    *,
    slow: float,
    prompt_tokens: int,
    cached_tokens: int,
    keep_ratio: float,
    list_at_s: float,
    begun_more: int,
    first_token_s: float,
    cloud_decode_s: float,
    pace_s: float,
) -> Bridge:
    """N of one keep ratio; `slow` scales every time of the device.

    The list finds `begun_more` tokens more begun than after `list_at_s`.
    """
    tokens = prompt_tokens
    if keep_ratio < 1:
        begun = begun_tokens(device, prompt_tokens, cached_tokens, list_at_s / slow) + begun_more
        begun = min(prompt_tokens, begun)
        tokens = begun + math.ceil(keep_ratio * (prompt_tokens - begun))
    left_s = max(0.0, slow * device.prefill_left_s(tokens, cached_tokens) - first_token_s)
    absorb_s = slow * device.absorb_per_token_s(tokens)
    absorb2_s = slow * device.prefill_per_token2_s
    handover_s = slow * device.handover_s
    needed = n_star(
        prefill_left_s=left_s,
        show_interval_s=pace_s,
        absorb_per_token_s=absorb_s,
        handover_s=handover_s,
        absorb_per_token2_s=absorb2_s,
    )
    if needed is not None:
        # The last of several tokens comes N - 1 steps of the cloud after the first one.
        last_s = absorb_s + absorb2_s * (2 * needed - 1) + handover_s
        late_s = (needed - 1) * cloud_decode_s + last_s - needed * pace_s
        gained_s = pace_s - cloud_decode_s - 2 * absorb2_s
        if late_s > 0:
            needed = None if gained_s <= 0 else needed + math.ceil(late_s / gained_s)
    return Bridge(needed, left_s, absorb_s)


def begun_tokens(
    device: DeviceProfile, prompt_tokens: int, cached_tokens: int, after_s: float
) -> int:
    """Tokens of the prompt that are in the cache or in work after so long a prefill."""
    if after_s <= 0:
        return cached_tokens
    left_s = device.prefill_s(cached_tokens) + after_s - device.prefill_base_s
    if left_s <= 0:
        return max(cached_tokens, 1)
    per_token_s, per_token2_s = device.prefill_per_token_s, device.prefill_per_token2_s
    root = per_token_s + math.sqrt(per_token_s * per_token_s + 4 * per_token2_s * left_s)
    begun = min(prompt_tokens, 2 * left_s / root) if root > 0 else prompt_tokens
    return max(cached_tokens, math.ceil(begun))
