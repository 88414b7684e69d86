"""What an engine checks before it touches anything: the contract of `forward`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segue_cloud.engine.base import Chunk
from segue_cloud.kv.layout import Cells, KvLayout
from segue_protocol.errors import ContextTooLong, InternalError, InvalidRequest


def check_batch(
    cells: Cells,
    chunks: Sequence[Chunk],
    layout: KvLayout,
    *,
    vocab_size: int,
    max_context_tokens: int,
) -> None:
    """Raise what :meth:`CloudEngine.forward` promises unless the batch makes sense."""
    if cells.ndim != 5 or cells.shape != layout.shape(cells.shape[2]):
        raise InternalError(f"cells have shape {cells.shape}, expected {layout.shape(-1)}")
    if cells.dtype != layout.storage_dtype or not cells.flags.writeable:
        raise InternalError(
            f"cells are {'' if cells.flags.writeable else 'read-only '}{cells.dtype}, "
            f"expected writable {layout.storage_dtype}"
        )
    if not chunks:
        raise InternalError("a batch needs at least one chunk")
    for chunk in chunks:
        _check_shape(chunk, cells.shape[2])
        check_tokens(
            chunk.token_ids,
            chunk.positions,
            vocab_size=vocab_size,
            max_context_tokens=max_context_tokens,
        )
    written = np.concatenate([chunk.cell_numbers()[-len(chunk.token_ids) :] for chunk in chunks])
    if len(np.unique(written)) != len(written):
        raise InternalError("two tokens of one batch share a cell")


def _check_shape(chunk: Chunk, n_cells: int) -> None:
    where = chunk.cells
    if isinstance(where, slice):
        if where.step not in (None, 1) or where.start is None or where.stop is None:
            raise InternalError(f"{where} is no run of cells; expected slice(start, stop)")
        inside = 0 <= where.start <= where.stop <= n_cells
    else:
        inside = not len(where) or (where.min() >= 0 and where.max() < n_cells)
    if not inside:
        raise InternalError(f"a chunk's cells lie outside the {n_cells} cells there are")
    new = len(chunk.token_ids)
    if not 0 < new == len(chunk.positions) or new > chunk.total:
        raise InternalError(
            f"a chunk of {new} ids, {len(chunk.positions)} positions and {chunk.total} cells; "
            "expected as many positions as ids, at least one, and no more than there are cells"
        )


def check_tokens(
    token_ids: Sequence[int],
    token_positions: Sequence[int],
    *,
    vocab_size: int,
    max_context_tokens: int,
) -> None:
    """Raise InvalidRequest or ContextTooLong for what :meth:`CloudEngine.forward` would refuse."""
    lowest, highest = min(token_ids), max(token_ids)
    if lowest < 0 or highest >= vocab_size:
        raise InvalidRequest(
            f"token id {lowest if lowest < 0 else highest} lies outside the vocabulary "
            f"0..{vocab_size - 1}; encode with this model's tokenizer",
            reason="TOKEN_ID",
        )
    positions = np.asarray(token_positions, np.int64)
    if positions[0] < 0 or (np.diff(positions) <= 0).any():
        raise InternalError("a chunk's positions are not ascending numbers from 0 on")
    if positions[-1] >= max_context_tokens:
        raise ContextTooLong(
            f"position {positions[-1]} lies outside the context of {max_context_tokens} tokens; "
            "shorten the prompt or the answer"
        )
