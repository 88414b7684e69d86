"""The receiver's side: a pool of pages over which requests lie scattered."""

from __future__ import annotations

from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.ledger import PageLedger, PageSource, PageTable
from segue_cloud.kv.memory import MemoryFile

__all__ = ["PagePool", "PageTable"]


class PagePool(PageLedger):
    """A page ledger with memory behind it.

    ``cells`` is [layers, 2, pages x page_tokens, kv_heads, head_dim]; page p
    is the cells from p x page_tokens on. Raises InvalidRequest for sizes below
    one.
    """

    def __init__(
        self,
        layout: KvLayout,
        pages: int,
        page_tokens: int,
        *,
        incarnation: bytes | None = None,
        memory: MemoryFile | None = None,
        source: PageSource | None = None,
    ) -> None:
        """`memory`: one at whose end the cells lie; None for a new one of `incarnation`."""
        super().__init__(pages, page_tokens, source=source)
        tokens = pages * page_tokens
        cells_bytes = tokens * layout.bytes_per_token
        self.layout = layout
        self._memory = memory or MemoryFile.create(
            slots=1, data_bytes=cells_bytes, incarnation=incarnation
        )
        self.cells: Cells = (
            self._memory.data[-cells_bytes:]
            .view(layout.storage_dtype)
            .reshape(layout.shape(tokens))
        )

    @property
    def incarnation(self) -> bytes:
        return self._memory.incarnation

    def check_integrity(self) -> None:
        """As the ledger's; the memory's header must be intact too."""
        super().check_integrity()
        self._memory.require_intact()

    def close(self) -> None:
        """Give the memory up; it goes with the last array that views it. May be called again."""
        self._memory.close()
