"""The reference model over caller-owned cells (exactness level 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segue_cloud.engine.base import Chunk, LayerWatch
from segue_cloud.engine.checks import check_batch
from segue_cloud.kv.layout import Cells, KvLayout
from segue_protocol.identity import ModelIdentity
from segue_protocol.reference import (
    DEFAULT_VOCAB_SIZE,
    logits_from_state,
    reference_identity,
    state_of,
)


class ReferenceEngine:
    """A :class:`~segue_cloud.engine.base.CloudEngine` whose logits come from the cells alone.

    The "key" of a token is its id and its "value" its position, so every byte
    of every cell counts: a cell that was lost, mixed up or changed on its way
    between workers gives other logits.
    """

    def __init__(
        self, vocab_size: int = DEFAULT_VOCAB_SIZE, max_context_tokens: int = 4096
    ) -> None:
        self.identity: ModelIdentity = reference_identity(vocab_size)
        self.layout = KvLayout(num_layers=1, num_kv_heads=1, head_dim=1, dtype="int64")
        self.max_context_tokens = max_context_tokens

    def forward(
        self, cells: Cells, chunks: Sequence[Chunk], *, watch: LayerWatch | None = None
    ) -> npt.NDArray[np.float32]:
        """See the contract; logits are [len(chunks), vocab]. A query is its token's id."""
        vocab_size = self.identity.vocab_size
        check_batch(
            cells,
            chunks,
            self.layout,
            vocab_size=vocab_size,
            max_context_tokens=self.max_context_tokens,
        )
        ids, positions = cells[0, 0, :, 0, 0], cells[0, 1, :, 0, 0]
        rows = []
        for chunk in chunks:
            numbers = chunk.cell_numbers()
            new = numbers[-len(chunk.token_ids) :]
            ids[new] = chunk.token_ids
            positions[new] = chunk.positions
            rows.append(logits_from_state(state_of(ids[numbers], positions[numbers]), vocab_size))
        if watch is not None:
            show_only_layer(watch, chunks[-1])
        return np.stack(rows)


def show_only_layer(watch: LayerWatch, last: Chunk) -> None:
    """Call `watch` for a model of one layer whose last chunk was `last`."""
    wanted = min(watch.wants_queries(0), len(last.token_ids))
    ids = last.token_ids[len(last.token_ids) - wanted :]
    watch.after_layer(0, np.array(ids, np.float32).reshape(-1, 1, 1) if wanted else None)
