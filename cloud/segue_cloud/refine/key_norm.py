"""Tokens with short keys are worth keeping: a scorer that needs no queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue_cloud.refine.attention import max_pool
from segue_cloud.refine.base import Scores

# Where the length of a key says nothing yet.
SKIPPED_LAYERS = 2


@dataclass(frozen=True, slots=True)
class KeyNormScorer:
    """The negative length of a token's keys, averaged over heads, pooled."""

    window: int = 0
    pool_tokens: int = 13

    def layers(self, num_layers: int) -> Sequence[int]:
        return range(min(SKIPPED_LAYERS, num_layers - 1), num_layers)

    def score(
        self, queries: npt.NDArray[np.float32] | None, keys: npt.NDArray[np.float32]
    ) -> Scores:
        """See the contract."""
        lengths: npt.NDArray[np.float32] = np.linalg.norm(keys, axis=-1)
        return max_pool(-lengths.mean(axis=-1), self.pool_tokens)
