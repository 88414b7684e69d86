"""One answer played token by token: what the tuner's closed form is judged by.

Written from the story alone (the device prefills, the list cuts its prompt, the
cloud's tokens come and are absorbed, one is shown every interval) and without
the tuner's formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from segue_protocol.timeline import DeviceProfile
from segue_protocol.tuning import TuningView

# Far below anything that can be seen, far above rounding.
ROUNDING_S = 1e-9


@dataclass(frozen=True)
class World:
    """How things really are in one play: the device's times longer by `slow`, the network's
    part of the cloud's TTFT longer by `later_s`, the list read `begun_more` tokens late."""

    slow: float = 1.0
    later_s: float = 0.0
    begun_more: int = 0


def late_by_n(view: TuningView, keep_ratio: float, pace_s: float, world: World) -> list[float]:
    """By how many seconds the device's first token is late, for N = 1 .. max_tokens.

    If the cloud makes the whole answer there is no such token: the last entry is 0.
    """
    device = view.device
    assert device is not None
    network_s = view.network.added_s + world.later_s
    first_s = max(0.0, network_s + view.cloud.ttft_s)
    list_s = first_s if view.cloud.list_s is None else max(0.0, network_s + view.cloud.list_s)
    now_s, cells = _prefill(view, device, keep_ratio, list_s, world)
    late_s = []
    for token in range(view.max_tokens - 1):
        arrived_s = first_s + token * view.cloud.decode_s
        now_s = max(now_s, arrived_s) + world.slow * _cost_s(device, cells)
        cells += 1
        ready_s = now_s + world.slow * device.handover_s
        late_s.append(ready_s - (first_s + (token + 1) * pace_s))
    return [*late_s, 0.0]


def alone_first_token_s(view: TuningView, world: World) -> float:
    """When a device that asks nobody has its first token."""
    assert view.device is not None
    done_s, _ = _prefill(view, view.device, 1.0, math.inf, world)
    return done_s + world.slow * view.device.decode_s


def _prefill(
    view: TuningView, device: DeviceProfile, keep_ratio: float, list_s: float, world: World
) -> tuple[float, int]:
    """When the prompt is in the cache, and in how many cells."""
    now_s, cells, left = 0.0, view.cached_tokens, view.prompt_tokens - view.cached_tokens
    cut, still = keep_ratio >= 1, world.begun_more
    while left > 0:
        if not cut and now_s >= list_s:
            cut, still = still == 0, still - 1
            if cut:
                left = math.ceil(keep_ratio * left)
        now_s += world.slow * _cost_s(device, cells)
        cells, left = cells + 1, left - 1
    return now_s, cells


def _cost_s(device: DeviceProfile, cells: int) -> float:
    """One more token behind so many cells; the first one pays for the beginning."""
    begin_s = device.prefill_base_s if cells == 0 else 0.0
    return begin_s + device.prefill_per_token_s + device.prefill_per_token2_s * (2 * cells + 1)
