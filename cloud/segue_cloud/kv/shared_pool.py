"""One page pool for several processes: who owns what, and the cells, in one memory file."""

from __future__ import annotations

from collections.abc import Sequence

from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.ledger import PageTable
from segue_cloud.kv.memory import PAGE_BYTES, MemoryFile
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.shared_pages import WORD_BYTES, SharedPages, words_needed
from segue_protocol.errors import InternalError, InvalidRequest


def create_pool_memory(
    layout: KvLayout, pages: int, page_tokens: int, *, incarnation: bytes | None = None
) -> MemoryFile:
    """Memory for a pool that processes attach to. Raises InvalidRequest for sizes below one."""
    if pages < 1 or page_tokens < 1:
        raise InvalidRequest(f"got {pages} pages of {page_tokens} tokens, expected some of each")
    return MemoryFile.create(
        slots=1, data_bytes=_size_bytes(layout, pages, page_tokens), incarnation=incarnation
    )


class SharedPagePool(PagePool):
    """A :class:`PagePool` as one of its processes sees it.

    What this process reserves is its own; what another one has reserved, it
    can pin and write to. Raises InternalError when `memory`, attached writable
    or this process' own, was made for another pool.
    """

    def __init__(self, memory: MemoryFile, layout: KvLayout, pages: int, page_tokens: int) -> None:
        if len(memory.data) != _size_bytes(layout, pages, page_tokens):
            raise InternalError(
                f"the pool's memory has {len(memory.data)} bytes, not those of {pages} pages of "
                f"{page_tokens} tokens; start all its processes with one configuration"
            )
        words = memory.data[: WORD_BYTES * words_needed(pages)].view("<u8")
        self._shared = SharedPages(memory, words, pages)
        self._borrowed: set[PageTable] = set()
        super().__init__(layout, pages, page_tokens, memory=memory, source=self._shared)

    def reclaim(self) -> int:
        """Free what dead processes held; how many pages became free."""
        return self._shared.reclaim()

    def pin_reservation(self, reservation: int, pages: Sequence[int]) -> PageTable | None:
        """As the ledger's, for a reservation of any process."""
        if reservation in self._tables:
            return super().pin_reservation(reservation, pages)
        if not self._shared.pin(reservation, pages):
            return None
        table = PageTable(self, reservation)
        table.hold(list(pages), self.page_tokens)
        self._borrowed.add(table)
        return table

    def unpin(self, table: PageTable) -> None:
        """See :meth:`PageTable.unpin`."""
        if table not in self._borrowed:
            super().unpin(table)
            return
        self._borrowed.remove(table)
        self._shared.unpin(table.pages)

    def close(self) -> None:
        """Leave the pool; what this process held in it is free. May be called again."""
        self._shared.close()
        super().close()


def _size_bytes(layout: KvLayout, pages: int, page_tokens: int) -> int:
    words_bytes = WORD_BYTES * words_needed(pages)
    begin = -(-words_bytes // PAGE_BYTES) * PAGE_BYTES  # cells lie as in a pool of their own
    return begin + pages * page_tokens * layout.bytes_per_token
