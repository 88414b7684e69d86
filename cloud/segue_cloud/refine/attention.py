"""Tokens are worth what the end of the prompt, its question, attends to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue_cloud.refine.base import Scores
from segue_protocol.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class OneLayer:
    """The list is made in one layer, long before the first token.

    `index` None is the layer that ends the first two fifths: about where models
    look up what was said before (docs/refinement.md).
    """

    index: int | None = None

    def __call__(self, num_layers: int) -> Sequence[int]:
        """Raises InvalidRequest when the model has no such layer."""
        index = math.ceil(0.4 * num_layers) - 1 if self.index is None else self.index
        if not 0 <= index < num_layers:
            raise InvalidRequest(
                f"prompts are to be scored in layer {index}, expected 0 to {num_layers - 1}"
            )
        return [index]


def all_layers(num_layers: int) -> Sequence[int]:
    """Every layer; the list is no earlier than the first token then."""
    return range(num_layers)


@dataclass(frozen=True, slots=True)
class AttentionScorer:
    """Attention of the last `window` tokens: the most any pays, pooled, summed over heads.

    The most and not the mean, as a question is shorter than the window. Pooling
    spreads a token's value over `pool_tokens` (an odd number): what a question
    needs stands beside the words that it repeats.
    """

    choose_layers: Callable[[int], Sequence[int]] = OneLayer()
    window: int = 32
    pool_tokens: int = 13

    def layers(self, num_layers: int) -> Sequence[int]:
        return self.choose_layers(num_layers)

    def score(
        self, queries: npt.NDArray[np.float32] | None, keys: npt.NDArray[np.float32]
    ) -> Scores:
        """See the contract."""
        assert queries is not None
        attention = attention_of(queries, keys).max(axis=1)
        scores: Scores = max_pool(attention, self.pool_tokens).sum(axis=0)
        return scores


def attention_of(
    queries: npt.NDArray[np.float32], keys: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Softmax attention of the last tokens' queries over all keys, [heads, window, tokens]."""
    window, heads, width = queries.shape
    tokens, kv_heads, _ = keys.shape
    grouped = queries.reshape(window, kv_heads, heads // kv_heads, width).transpose(1, 2, 0, 3)
    rows = grouped.reshape(kv_heads, -1, width) @ keys.transpose(1, 2, 0)
    logits: npt.NDArray[np.float32] = rows.reshape(heads, window, tokens) * np.float32(width**-0.5)
    # The first of the window cannot see the others.
    hidden = np.triu(np.ones((window, window), dtype=bool), 1)
    logits[:, :, tokens - window :][:, hidden] = -np.inf
    logits -= logits.max(axis=-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=-1, keepdims=True)
    return logits


def max_pool(values: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    """The largest of `width` neighbours along the last axis, same shape; `width` is odd."""
    side = width // 2
    padding = [(0, 0)] * (values.ndim - 1) + [(side, side)]
    padded = np.pad(values, padding, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    pooled: npt.NDArray[np.float32] = windows.max(axis=-1)
    return pooled
