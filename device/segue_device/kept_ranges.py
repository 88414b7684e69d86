"""What of a refined prompt is still to be prefilled, as runs of original positions.

The cloud's list names what to keep; the device leaves out what it has computed
and fills what is not worth leaving out. llama.cpp places every gap by a bridge: the
batch ends there, the cell before it is noted anew, and one more decode follows
(:mod:`segue_device.engines.llama_gaps`). So short gaps are filled, and the number
of gaps is bounded. ONNX Runtime takes gaps for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from segue_protocol.errors import InvalidRequest, ProtocolError

# Measured with llama.cpp on one core of an AVX-512 server CPU, 512 tokens: a gap
# took as long as prefilling 10 to 16 tokens, both with the tiny model (1.2 ms a gap)
# and with one of 150 M parameters in fp32 and int8 (15 to 40 ms); with ONNX
# Runtime nothing that could be measured.
FILLED_GAP_TOKENS = 12
# At most 384 tokens' worth of time in all, where a gap costs what it did there.
MAX_GAPS = 32

Run = tuple[int, int]


def remaining_runs(
    prompt_tokens: int,
    kept: Sequence[Run],
    computed: int,
    *,
    filled_gap_tokens: int = FILLED_GAP_TOKENS,
    max_gaps: int = MAX_GAPS,
) -> list[Run]:
    """Runs (start, end) of the prompt's positions to prefill, half-open and ascending.

    `kept` are the cloud's ranges, half-open, ascending and disjoint; `computed`
    the prompt's leading positions that are in the cache. The runs are all of
    `kept` from there on and the last position, whose logits are needed; gaps of
    up to `filled_gap_tokens` are filled, also the one behind the computed, and
    then the shortest until `max_gaps` are left. Empty when all is computed.

    Raises ProtocolError for ranges that are empty, out of order or outside the
    prompt, InvalidRequest when `computed` is or a bound is negative.
    """
    if not 0 <= computed <= prompt_tokens or prompt_tokens < 1:
        raise InvalidRequest(
            f"{computed} of {prompt_tokens} prompt tokens are computed, expected a prompt of at "
            "least one and no more of them"
        )
    if filled_gap_tokens < 0 or max_gaps < 0:
        raise InvalidRequest(
            f"filled_gap_tokens is {filled_gap_tokens} and max_gaps {max_gaps}, expected 0 or more"
        )
    _check(prompt_tokens, kept)
    # What is computed counts as a run, so that the gap behind it is one like the others.
    runs = [(0, computed)] if computed else []
    runs += [(max(start, computed), end) for start, end in kept if end > computed]
    if not runs or runs[-1][1] < prompt_tokens:
        runs.append((prompt_tokens - 1, prompt_tokens))
    filled = _fill(runs, filled_gap_tokens, max_gaps)
    return [(max(start, computed), end) for start, end in filled if end > computed]


def _check(prompt_tokens: int, kept: Sequence[Run]) -> None:
    last = 0
    for start, end in kept:
        if not last <= start < end <= prompt_tokens:
            raise ProtocolError(
                f"the cloud keeps positions {start} to {end} behind {last} of a prompt of "
                f"{prompt_tokens}; expected ascending ranges inside the prompt, none empty"
            )
        last = end


def _fill(runs: Sequence[Run], filled_gap_tokens: int, max_gaps: int) -> list[Run]:
    """Join runs over the gaps that are short, and over the shortest of too many."""
    gaps = [after[0] - before[1] for before, after in pairwise(runs)]
    short = sum(gap <= filled_gap_tokens for gap in gaps)
    shortest_first = sorted(range(len(gaps)), key=gaps.__getitem__)
    filled = set(shortest_first[: max(short, len(gaps) - max_gaps)])
    joined = [runs[0]]
    for index, (start, end) in enumerate(runs[1:]):
        if index in filled:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
