"""The KV of prompt beginnings that a prefill worker keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from segue_cloud.engine.base import CellIndex
from segue_cloud.kv.layout import Cells, KvLayout
from segue_protocol.errors import InternalError, InvalidRequest


class PrefixCache:
    """Blocks of cells by key, in private memory; the least recently used go first.

    A block is what one call of the engine wrote, and who misses makes the same
    calls: a copied cell is bit for bit the cell that would have been computed.
    Used from the compute thread.
    """

    def __init__(self, layout: KvLayout, capacity_bytes: int) -> None:
        if capacity_bytes < 0:
            raise InvalidRequest(
                f"prefix_cache_bytes is {capacity_bytes}, expected a size, or 0 for no cache"
            )
        self._layout = layout
        self._capacity_bytes = capacity_bytes
        self._blocks: OrderedDict[bytes, Cells] = OrderedDict()
        self.used_bytes = 0

    @property
    def enabled(self) -> bool:
        return self._capacity_bytes > 0

    def load(
        self, keys: Sequence[bytes], ends: Sequence[int], cells: Cells, where: CellIndex | slice
    ) -> int:
        """Copy the leading blocks that are here into `cells`; returns how many.

        Token i of the prompt lies in the i-th cell of `where`.
        """
        start = 0
        for place, (key, end) in enumerate(zip(keys, ends, strict=True)):
            block = self._blocks.get(key)
            if block is None:
                return place
            cells[:, :, _part(where, start, end)] = block
            start = end
        return len(keys)

    def store(
        self, keys: Sequence[bytes], ends: Sequence[int], cells: Cells, where: CellIndex | slice
    ) -> None:
        """Keep copies of the blocks of one prompt, as many as fit, and give up others for them."""
        bounds = [
            (key, start, end)
            for key, start, end in zip(keys, (0, *ends), ends, strict=False)
            if end * self._layout.bytes_per_token <= self._capacity_bytes
        ]
        for key, _, _ in bounds:  # so that room for the others is not made of these
            if key in self._blocks:
                self._blocks.move_to_end(key)
        for key, start, end in reversed(bounds):  # given up last: the beginning
            if key not in self._blocks:
                block = cells[:, :, _part(where, start, end)].copy()
                self._make_room(block.nbytes)
                self._blocks[key] = block
                self.used_bytes += block.nbytes
            self._blocks.move_to_end(key)

    def _make_room(self, size_bytes: int) -> None:
        while self.used_bytes + size_bytes > self._capacity_bytes:
            _, oldest = self._blocks.popitem(last=False)
            self.used_bytes -= oldest.nbytes

    def check_integrity(self) -> None:
        """Raise InternalError unless the bytes add up and stay within the capacity."""
        total = sum(block.nbytes for block in self._blocks.values())
        if total != self.used_bytes or total > self._capacity_bytes:
            raise InternalError(
                f"the prefix cache holds {total} bytes, counts {self.used_bytes} and may hold "
                f"{self._capacity_bytes}"
            )


def _part(where: CellIndex | slice, start: int, end: int) -> CellIndex | slice:
    if isinstance(where, slice):
        return slice(where.start + start, where.start + end)
    return where[start:end]
