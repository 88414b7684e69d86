"""How fast this device is: a measurement with the real engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from segue_device.engines.base import Cancel
from segue_device.engines.runner import Runner
from segue_device.profile_fit import fit_prefill
from segue_protocol.errors import ContextTooLong
from segue_protocol.sampling_options import Sampling
from segue_protocol.timeline import DeviceProfile

# While an app starts; `segue profile` takes longer and stores what it finds.
START_BUDGET_S = 1.0
HANDOVER_S = 0.02

_DECODE_TOKENS = 8
_MAX_PASSES = 5
# Of the engine's chunk; longer prefills are two chunks, four, eight, ...
_SHORT_PARTS = (8, 4, 2, 1)
# Of the budget, for the first pass.
_FIRST_PART = 0.5

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A profile and where it comes from.

    ``seconds_by_tokens`` is the shortest time of every timed prefill length,
    ``fit_error`` the relative root mean square of the profile beside them.
    """

    profile: DeviceProfile
    seconds_by_tokens: Mapping[int, float]
    fit_error: float


async def measure_profile(
    runner: Runner,
    *,
    budget_s: float = START_BUDGET_S,
    on_progress: Callable[[float], None] = lambda done: None,
    clock: Clock = time.perf_counter,
) -> Measurement:
    """Time prefills of several lengths and some decoding; the cache is empty afterwards.

    The first pass doubles the length as long as half of `budget_s` lasts, but
    takes two lengths at least; later ones repeat its lengths, and the shortest
    time counts: whatever else runs can only make one longer. `on_progress` is
    told the part of the budget that is used, 0 to 1. Raises ContextTooLong
    when the engine's context has no room for it, and what the engine raises.
    """
    started_s = clock()

    def used_s() -> float:
        used = clock() - started_s
        on_progress(min(1.0, used / budget_s))
        return used

    lengths = _lengths(runner)
    # Loading leaves allocations and page faults to the first call.
    await _timed_prefills(runner, lengths[:1], clock, more=lambda last_s: False)
    first_s = budget_s * _FIRST_PART
    taken_s = await _timed_prefills(
        runner, lengths, clock, more=lambda last_s: used_s() + 2 * last_s < first_s
    )
    decode_s = await _decode_s(runner, clock)
    pass_s = used_s()
    for _ in range(_MAX_PASSES - 1):
        if used_s() + pass_s > budget_s:
            break
        again_s = await _timed_prefills(runner, list(taken_s), clock, more=lambda last_s: True)
        taken_s = {tokens: min(taken_s[tokens], again_s[tokens]) for tokens in taken_s}
        decode_s = min(decode_s, await _decode_s(runner, clock))
    await runner.rewind(0)
    on_progress(1.0)
    fit = fit_prefill(taken_s)
    profile = DeviceProfile(
        prefill_base_s=fit.base_s,
        prefill_per_token_s=fit.per_token_s,
        prefill_per_token2_s=fit.per_token2_s,
        decode_s=decode_s,
        handover_s=HANDOVER_S,
    )
    profile.validate()
    return Measurement(profile, taken_s, fit.error)


def _lengths(runner: Runner) -> list[int]:
    """Ascending prefill lengths [tokens] that leave room for decoding."""
    longest = runner.capabilities.max_context_tokens - _DECODE_TOKENS
    if longest < 1:
        raise ContextTooLong(
            f"a context of {longest + _DECODE_TOKENS} tokens is too short to measure in; expected "
            f"more than {_DECODE_TOKENS}: load the engine with a larger one, or pass a profile"
        )
    chunk = min(runner.capabilities.chunk_tokens, longest)
    lengths = sorted({max(1, chunk // part) for part in _SHORT_PARTS})
    while 2 * lengths[-1] <= longest:
        lengths.append(2 * lengths[-1])
    return lengths


async def _timed_prefills(
    runner: Runner, lengths: list[int], clock: Clock, *, more: Callable[[float], bool]
) -> dict[int, float]:
    """Seconds from an empty cache to each length, in the chunks of a real prompt.

    `more(seconds of the last one)` decides whether a third length and further
    ones follow. Beyond one chunk a prefill goes on where the last one ended.
    """
    chunk = runner.capabilities.chunk_tokens
    cancel = Cancel()
    taken_s: dict[int, float] = {}
    done, elapsed_s = 0, 0.0
    for tokens in lengths:
        if len(taken_s) >= 2 and not more(elapsed_s):
            break
        if tokens <= chunk:
            await runner.rewind(0)
            done, elapsed_s = 0, 0.0
        while done < tokens:
            end = min(done + chunk, tokens)
            began_s = clock()
            await runner.append([0] * (end - done), range(done, end), cancel=cancel)
            elapsed_s += clock() - began_s
            done = end
        taken_s[tokens] = elapsed_s
    return taken_s


async def _decode_s(runner: Runner, clock: Clock) -> float:
    """Seconds a token takes behind what is in the cache: logits, sampling, append."""
    from segue_protocol.sampling import sample  # needs numpy, which an engine brings

    cancel, sampling = Cancel(), Sampling()
    first = len(runner.cells)
    steps_s = []
    for index in range(_DECODE_TOKENS):
        began_s = clock()
        chosen = sample(await runner.logits(), sampling, prompt_ids=(), output_ids=(), index=index)
        await runner.append([chosen.token_id], [first + index], cancel=cancel)
        steps_s.append(clock() - began_s)
    return statistics.median(steps_s)
