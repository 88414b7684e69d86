"""What a scorer is: it values the tokens of a prompt by what its prefill leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32]


class Scorer(Protocol):
    """Pure: the same tensors give the same scores. Called in the engine's thread."""

    @property
    def window(self) -> int:
        """Of how many last tokens `score` wants the queries; 0: it looks at keys alone."""
        ...

    def layers(self, num_layers: int) -> Sequence[int]:
        """The layers to be scored, ascending, at least one; the list is made after the last."""
        ...

    def score(
        self, queries: npt.NDArray[np.float32] | None, keys: npt.NDArray[np.float32]
    ) -> Scores:
        """Value of each token in one layer, [tokens]; more is worth more.

        `queries` are [window, heads, head_dim] of the last tokens, fewer where
        the prompt is shorter, None for a window of 0; `keys` are
        [tokens, kv_heads, head_dim]. Both after rotary embedding.
        """
        ...
