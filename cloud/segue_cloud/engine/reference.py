"""The reference model over caller-owned cells (exactness level 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segue_cloud.engine.base import Chunk
from segue_cloud.kv.layout import KvLayout
from segue_protocol.identity import ModelIdentity
from segue_protocol.reference import (
    DEFAULT_VOCAB_SIZE,
    logits_from_state,
    reference_identity,
    state_of,
)


class ReferenceEngine:
    def __init__(
        self, vocab_size: int = DEFAULT_VOCAB_SIZE, max_context_tokens: int = 4096
    ) -> None:
        self.identity: ModelIdentity = reference_identity(vocab_size)
        self.layout = KvLayout(1, 1, 2, "float64")
        self.max_context_tokens = max_context_tokens

    def forward(
        self, cells: npt.NDArray[np.generic], chunks: Sequence[Chunk]
    ) -> npt.NDArray[np.float32]:
        rows = []
        for chunk in chunks:
            index = chunk.cells
            n = len(chunk.token_ids)
            numbers = np.arange(cells.shape[2])[index] if isinstance(index, slice) else index
            cells[0, 0, numbers[-n:], 0, 0] = chunk.token_ids
            cells[0, 0, numbers[-n:], 0, 1] = chunk.positions
            held = cells[0, 0, numbers, 0].astype(np.int64)
            rows.append(
                logits_from_state(state_of(held[:, 0], held[:, 1]), self.identity.vocab_size)
            )
        return np.stack(rows)
