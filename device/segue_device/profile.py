"""How fast this device is: a short measurement with the real engine."""

from __future__ import annotations

import anyio

from segue_device.engines.base import Cancel
from segue_device.engines.runner import Runner
from segue_protocol.timeline import DeviceProfile

PREFILL_TOKENS = 256
DECODE_TOKENS = 4
HANDOVER_S = 0.02


async def measure_profile(runner: Runner) -> DeviceProfile:
    """Prefill a chunk and decode a few tokens, warm; the cache is empty afterwards.

    Two prefill lengths would be needed to tell base from slope; a device's
    base is small, so all of it counts as slope, which errs towards more help
    from the cloud.
    """
    cancel = Cancel()
    tokens = min(PREFILL_TOKENS, runner.capabilities.max_context_tokens - DECODE_TOKENS)
    ids = [0] * tokens
    for _ in range(2):  # the first run pays for allocation
        await runner.rewind(0)
        started_s = anyio.current_time()
        await runner.append(ids, range(tokens), cancel=cancel)
        prefill_s = anyio.current_time() - started_s
    started_s = anyio.current_time()
    for position in range(tokens, tokens + DECODE_TOKENS):
        await runner.append([0], [position], cancel=cancel)
        await runner.logits()
    decode_s = (anyio.current_time() - started_s) / DECODE_TOKENS
    await runner.rewind(0)
    return DeviceProfile(
        prefill_base_s=0.0,
        prefill_per_token_s=prefill_s / tokens,
        prefill_per_token2_s=0.0,
        decode_s=max(decode_s, 1e-6),
        handover_s=HANDOVER_S,
    )
