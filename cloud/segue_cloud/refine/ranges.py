"""From scores to the list of what is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from segue_cloud.refine.base import Scores
from segue_cloud.refine.guards import Guards
from segue_protocol.errors import InvalidRequest

Run = tuple[int, int]

# Tokens that are kept or dropped together.
CHUNK_TOKENS = 4


def keep_ranges(
    scores: Scores,
    ids: Sequence[int],
    keep_ratio: float,
    guards: Guards,
    *,
    chunk_tokens: int = CHUNK_TOKENS,
) -> list[Run]:
    """Half-open ranges of positions of the prompt `ids`, ascending and apart.

    Kept is what the guards demand and, of the rest, the share `keep_ratio`: the
    best chunks, of the last one its beginning. A chunk is worth its best token; of
    equal ones the earlier is kept. No range begins or ends inside a character.
    Raises InvalidRequest for a ratio outside (0, 1] or a prompt without tokens.
    """
    tokens = len(ids)
    if not 0 < keep_ratio <= 1 or not tokens or len(scores) != tokens:
        raise InvalidRequest(
            f"keep_ratio is {keep_ratio} for {tokens} tokens with {len(scores)} scores; expected "
            "a ratio above 0 and up to 1, and a score for each of one or more tokens"
        )
    begins = guards.may_begin(ids)
    characters = np.cumsum(begins) - 1
    stay = np.zeros(characters[-1] + 1, dtype=bool)
    stay[characters[guards.must_stay(ids)]] = True
    kept = stay[characters]

    # A chunk that would begin inside a character begins with that character.
    first_of_character = np.maximum.accumulate(np.where(begins, np.arange(tokens), 0))
    starts = np.unique(first_of_character[::chunk_tokens])
    ends = [*starts[1:].tolist(), tokens]
    values = np.maximum.reduceat(np.where(kept, -np.inf, scores), starts)
    left = math.floor(keep_ratio * int((~kept).sum()))
    for chunk in np.argsort(-values, kind="stable"):
        new = starts[chunk] + np.flatnonzero(~kept[starts[chunk] : ends[chunk]])
        taken = min(left, len(new))
        while taken < len(new) and taken and not begins[new[taken]]:
            taken -= 1
        kept[new[:taken]] = True
        left -= taken
        if taken < len(new) or not left:
            break
    return _runs(kept)


def _runs(kept: np.typing.NDArray[np.bool_]) -> list[Run]:
    """The stretches of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
