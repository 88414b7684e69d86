"""RecvScatter: one contiguous layer into the pages of a request."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.layout import Cells

_WORD = np.dtype(np.uint64)


class Scatter:
    """Where the tokens of one request go in a pool of `n_cells` cells.

    `cell_numbers` is int64 [tokens]. Tokens that lie together and in step (in
    practice the pages) are moved as one row by one indexed assignment a plane,
    which runs at the speed of a contiguous copy; a copy per page does not.
    """

    def __init__(self, cell_numbers: npt.NDArray[np.int64], n_cells: int) -> None:
        starts = np.concatenate(([0], np.flatnonzero(np.diff(cell_numbers) != 1) + 1))
        # The largest block size in which source and target both fall into whole blocks.
        granule = int(np.gcd.reduce([*starts, *cell_numbers[starts], n_cells]))
        whole = len(cell_numbers) // granule * granule
        self._granule = granule
        self._whole = whole
        self._blocks = cell_numbers[:whole:granule] // granule
        # Less than a block: consecutive, because blocks start with runs.
        self._rest = cell_numbers[whole:]

    def copy(self, source: Cells, target: Cells) -> None:
        """Write `source` [2, tokens, kv_heads, head_dim] into `target`, [2, n_cells, ...]."""
        for plane, pool in zip(source, target, strict=True):
            if self._whole:
                blocks = _rows(pool, self._granule)
                blocks[self._blocks] = _rows(plane[: self._whole], self._granule)
            if len(self._rest):
                first = int(self._rest[0])
                pool[first : first + len(self._rest)] = plane[self._whole :]


def _rows(cells: Cells, tokens: int) -> Cells:
    """A view of contiguous cells [n, ...] with `tokens` of them in a row of wide words."""
    rows = cells.reshape(len(cells) // tokens, -1)
    # Wide words: numpy moves indexed rows element by element.
    return rows if rows.shape[1] * rows.itemsize % _WORD.itemsize else rows.view(_WORD)
