"""What every cloud engine is, who calls it and what may change.

One worker process owns one engine and calls it from one thread. The engine
owns the weights; the key/value cells belong to the caller, who hands them in
with every call, so that prefill (one contiguous buffer a request) and decode
(pages scattered over a pool) run the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.layout import Cells, KvLayout
from segue_protocol.identity import ModelIdentity

CellIndex = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """New tokens of one sequence in one forward pass.

    ``cells`` are the cell numbers of the *whole* sequence in position order,
    shape [n_total]; the last ``len(token_ids)`` of them are written by this
    pass, the others were written before. A ``slice`` (with start and stop)
    stands for consecutive cells. ``positions`` are those of the new tokens,
    ascending; they may have gaps (a refined prompt keeps its original ones).
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    cells: CellIndex | slice

    @property
    def total(self) -> int:
        """Tokens of the whole sequence after this pass."""
        if isinstance(self.cells, slice):
            return int(self.cells.stop - self.cells.start)
        return len(self.cells)

    def cell_numbers(self) -> CellIndex:
        """``cells`` spelled out, int64 [n_total]."""
        if isinstance(self.cells, slice):
            return np.arange(self.cells.start, self.cells.stop)
        return self.cells


class LayerWatch(Protocol):
    """Looks on while a forward pass goes through the layers.

    Called in the engine's thread; what it raises ends the pass at once and
    comes out of `forward` (an abort raises Cancelled). The cells of the pass's
    new tokens are then to be taken for unwritten.
    """

    def wants_queries(self, layer: int) -> int:
        """How many of the last chunk's last tokens to hand over the queries of; 0 for none."""
        ...

    def after_layer(self, layer: int, queries: npt.NDArray[np.float32] | None) -> None:
        """The keys and values of every new token of the pass are in the cells of `layer`.

        Called once a layer, ascending. `queries` are [n, heads, head_dim], as
        the keys after rotary embedding, n the smaller of what was wanted and
        of the last chunk's tokens; None when none were wanted.
        """
        ...


class CloudEngine(Protocol):
    """A model over caller-owned key/value cells."""

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def layout(self) -> KvLayout: ...

    @property
    def max_context_tokens(self) -> int: ...

    def forward(
        self, cells: Cells, chunks: Sequence[Chunk], *, watch: LayerWatch | None = None
    ) -> npt.NDArray[np.float32]:
        """Run one ragged batch.

        ``cells`` has the shape [layers, 2, n_cells, kv_heads, head_dim] and
        the layout's storage dtype; it is written in place, only at the new
        cells of each chunk. Returns the logits after each chunk's last token,
        shape [len(chunks), vocab]. The same call gives the same bits, watched
        or not. A whole prompt may come as one chunk.

        Raises InvalidRequest for a token id outside the vocabulary,
        ContextTooLong for a position outside the context, InternalError when
        cells and chunks contradict each other; nothing is written then.
        """
        ...
