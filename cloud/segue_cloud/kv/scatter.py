"""RecvScatter: contiguous pieces into the pages of a request."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.layout import Cells

_WORD = np.dtype(np.uint64)


class Scatter:
    """Where the tokens of one request go in a pool of `n_cells` cells.

    `cell_numbers` is int64 [tokens]. Tokens that lie together and in step (in
    practice the pages) are moved as one row by one indexed assignment, which runs
    at the speed of a contiguous copy; a copy per page does not.
    """

    def __init__(self, cell_numbers: npt.NDArray[np.int64], n_cells: int) -> None:
        starts = np.concatenate(([0], np.flatnonzero(np.diff(cell_numbers) != 1) + 1))
        # The largest block size in which source and target both fall into whole blocks.
        self._granule = int(np.gcd.reduce([*starts, *cell_numbers[starts], n_cells]))
        self._numbers = cell_numbers
        whole = len(cell_numbers) // self._granule * self._granule
        self._blocks = cell_numbers[: whole : self._granule] // self._granule

    def copy(self, source: Cells, first: int, target: Cells) -> None:
        """Write `source` [n, kv_heads, head_dim], the tokens from `first` on, into `target`.

        `target` is one plane of the pool, [n_cells, kv_heads, head_dim].
        """
        stop, granule = first + len(source), self._granule
        # Whole blocks between a beginning and an end that are less than one.
        begin = min(stop, -(-first // granule) * granule)
        end = max(begin, stop // granule * granule)
        if end > begin:
            blocks = self._blocks[begin // granule : end // granule]
            _rows(target, granule)[blocks] = _rows(source[begin - first : end - first], granule)
        for start, after in ((first, begin), (end, stop)):
            if after > start:
                target[self._numbers[start:after]] = source[start - first : after - first]


def _rows(cells: Cells, tokens: int) -> Cells:
    """A view of contiguous cells [n, ...] with `tokens` of them in a row of wide words."""
    rows = cells.reshape(len(cells) // tokens, -1)
    # Wide words: numpy moves indexed rows element by element.
    return rows if rows.shape[1] * rows.itemsize % _WORD.itemsize else rows.view(_WORD)
