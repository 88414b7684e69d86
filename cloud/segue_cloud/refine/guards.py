"""What of a prompt may not be dropped, and where it may not be cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue_protocol.vocabulary import Vocabulary

Mask = npt.NDArray[np.bool_]

# Where attention rests that has nothing to look at: a model without them breaks.
FIRST_TOKENS = 4
# The question: what everything is scored by.
LAST_TOKENS = 32
# Behind a special token: the name of a role and the end of its line.
TEMPLATE_TOKENS = 3
# Bytes of the longest character in UTF-8, less the first.
MAX_CONTINUATIONS = 3


@dataclass(frozen=True, slots=True)
class Guards:
    """`special_ids` have no text; `inside_ids` begin inside a character of UTF-8."""

    special_ids: Collection[int]
    inside_ids: Collection[int] = ()

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Guards:
        """The guards of one tokenizer."""
        return cls(
            vocabulary.special_ids,
            frozenset(
                each
                for each in vocabulary
                if each not in vocabulary.special_ids and _continues(vocabulary.piece(each))
            ),
        )

    def must_stay(self, ids: Sequence[int]) -> Mask:
        """[tokens]: true for the first, the last, and what a template writes."""
        stay = np.zeros(len(ids), dtype=bool)
        stay[:FIRST_TOKENS] = stay[-LAST_TOKENS:] = True
        for place in np.flatnonzero(np.isin(ids, list(self.special_ids))):
            stay[place : place + 1 + TEMPLATE_TOKENS] = True
        return stay

    def may_begin(self, ids: Sequence[int]) -> Mask:
        """[tokens]: false where a range that begins here would cut a character."""
        begins = ~np.isin(ids, list(self.inside_ids))
        begins[0] = True
        run = 0
        for place in np.flatnonzero(~begins):
            run = run + 1 if not begins[place - 1] else 1
            if run > MAX_CONTINUATIONS:  # bytes that are no text: cut anywhere
                begins[place] = True
        return begins


def _continues(piece: bytes) -> bool:
    return bool(piece) and piece[0] & 0b1100_0000 == 0b1000_0000
