"""Who owns which page: pure accounting, no memory behind it."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segue_protocol.errors import InternalError, InvalidRequest, OutOfRange


class PageSource(Protocol):
    """Where a ledger's pages come from: a list of its own, or what several processes share."""

    @property
    def free_pages(self) -> int:
        """Pages that may be taken now."""
        ...

    def new_reservation(self) -> int:
        """A number that names one reservation, never used before."""
        ...

    def take(self, reservation: int, count: int) -> list[int] | None:
        """`count` free pages, distinct, for a reservation; None, and no change, if short."""
        ...

    def give_back(self, pages: Sequence[int]) -> None:
        """They are not owned any more."""
        ...

    def check_owned(self, pages: Sequence[int]) -> None:
        """Raise InternalError unless exactly these, each once, are owned through this source."""
        ...


class FreeList:
    """A :class:`PageSource` of one process."""

    def __init__(self, pages: int) -> None:
        self._pages = pages
        # Every second page first, freed ones last: requests lie scattered from
        # the start, as they do in a pool that has run for days, so an error in
        # the scattering shows in the first request and not after days.
        self._free = deque([*range(0, pages, 2), *range(1, pages, 2)])
        self._reservations = itertools.count(1)

    @property
    def free_pages(self) -> int:
        return len(self._free)

    def new_reservation(self) -> int:
        return next(self._reservations)

    def take(self, reservation: int, count: int) -> list[int] | None:
        if count > len(self._free):
            return None
        return [self._free.popleft() for _ in range(count)]

    def give_back(self, pages: Sequence[int]) -> None:
        self._free.extend(pages)

    def check_owned(self, pages: Sequence[int]) -> None:
        if sorted([*self._free, *pages]) != list(range(self._pages)):
            raise InternalError(
                f"{len(self._free)} free and {len(pages)} owned pages are not the {self._pages} "
                "pages of the pool, each once"
            )


class PageTable:
    """The pages of one request, from :meth:`PageLedger.reserve` to :meth:`PageLedger.free`."""

    def __init__(self, ledger: PageLedger, reservation: int) -> None:
        self.pages: list[int] = []
        self.reservation = reservation
        self._ledger = ledger
        self._cells = np.empty(0, np.int64)

    @property
    def capacity_tokens(self) -> int:
        return len(self._cells)

    def extend(self, tokens: int) -> bool:
        """Grow so that `tokens` cells fit in all; False, and no change, if pages are short.

        Never shrinks. Raises InternalError after the table was freed.
        """
        return self._ledger.grow(self, tokens)

    def cells(self, tokens: int) -> npt.NDArray[np.int64]:
        """Cell numbers of the first `tokens` tokens, int64 [tokens], a read-only view.

        Raises InternalError beyond the reservation: a request that writes
        there would write into another's page.
        """
        if not 0 <= tokens <= self.capacity_tokens:
            raise InternalError(
                f"{tokens} cells were asked of a reservation of {self.capacity_tokens}"
            )
        return self._cells[:tokens]

    def pin(self) -> None:
        """Somebody writes to these pages: until :meth:`unpin`, freeing them is put off.

        Counts. Raises InternalError after the table was freed.
        """
        self._ledger.pin(self)

    def unpin(self) -> None:
        """Take one pin back. Raises InternalError where there is none."""
        self._ledger.unpin(self)

    def hold(self, pages: list[int], page_tokens: int) -> None:
        """Make `pages` the pages of this table; called by the ledger only."""
        self.pages = pages
        starts = np.asarray(pages, np.int64)[:, None] * page_tokens
        self._cells = (starts + np.arange(page_tokens)).reshape(-1)
        self._cells.flags.writeable = False


class PageLedger:
    """Hands out ``pages`` pages of ``page_tokens`` tokens each; each has one owner at most.

    Used from one thread. Raises InvalidRequest for sizes below one.
    """

    def __init__(self, pages: int, page_tokens: int, *, source: PageSource | None = None) -> None:
        """`source`: of the same number of pages; None for a list of its own."""
        if pages < 1 or page_tokens < 1:
            raise InvalidRequest(
                f"a page pool needs at least one page of one token, got {pages} pages "
                f"of {page_tokens} tokens"
            )
        self.pages = pages
        self.page_tokens = page_tokens
        self._source = source or FreeList(pages)
        self._tables: dict[int, PageTable] = {}  # by reservation
        self._pins: Counter[PageTable] = Counter()
        self._freed_but_pinned: set[PageTable] = set()

    @property
    def free_pages(self) -> int:
        return self._source.free_pages

    @property
    def used(self) -> int:
        """Pages that nobody can have now."""
        return self.pages - self._source.free_pages

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens take."""
        return -(-tokens // self.page_tokens)

    def reserve(self, tokens: int) -> PageTable | None:
        """A table with room for `tokens` tokens, or None when pages are short now.

        Raises OutOfRange if even the empty pool is too small (waiting would
        never end), InvalidRequest for fewer than one token.
        """
        if tokens < 1:
            raise InvalidRequest(f"a reservation holds at least one token, got {tokens}")
        if self.pages_for(tokens) > self.pages:
            raise OutOfRange(
                f"{tokens} tokens need {self.pages_for(tokens)} pages of {self.page_tokens}, the "
                f"whole pool has {self.pages}; ask for less or start the worker with more",
                reason="KV_POOL_TOO_SMALL",
            )
        table = PageTable(self, self._source.new_reservation())
        self._tables[table.reservation] = table
        if not self.grow(table, tokens):
            del self._tables[table.reservation]
            return None
        return table

    def grow(self, table: PageTable, tokens: int) -> bool:
        """See :meth:`PageTable.extend`."""
        self._require_owned(table)
        missing = self.pages_for(tokens) - len(table.pages)
        if missing > 0:
            taken = self._source.take(table.reservation, missing)
            if taken is None:
                return False
            table.hold(table.pages + taken, self.page_tokens)
        return True

    def free(self, table: PageTable) -> None:
        """Take every page of `table` back, once it has no pin.

        Raises InternalError for a second time.
        """
        self._require_owned(table)
        del self._tables[table.reservation]
        if self._pins[table]:
            self._freed_but_pinned.add(table)
        else:
            self._take_back(table)

    def pin_reservation(self, reservation: int, pages: Sequence[int]) -> PageTable | None:
        """The table of a reservation of these pages, pinned; None if it is none, or was freed."""
        table = self._tables.get(reservation)
        if table is None or table.pages != list(pages):
            return None
        self.pin(table)
        return table

    def pin(self, table: PageTable) -> None:
        """See :meth:`PageTable.pin`."""
        self._require_owned(table)
        self._pins[table] += 1

    def unpin(self, table: PageTable) -> None:
        """See :meth:`PageTable.unpin`."""
        if not self._pins[table]:
            raise InternalError(f"reservation {table.reservation} has no pin to take back")
        self._pins[table] -= 1
        if not self._pins[table]:
            del self._pins[table]
            if table in self._freed_but_pinned:
                self._freed_but_pinned.remove(table)
                self._take_back(table)

    def _take_back(self, table: PageTable) -> None:
        self._source.give_back(table.pages)
        table.hold([], self.page_tokens)

    def check_integrity(self) -> None:
        """Raise InternalError unless every page is free or owned, exactly once."""
        tables = [*self._tables.values(), *self._freed_but_pinned]
        self._source.check_owned([page for table in tables for page in table.pages])

    def _require_owned(self, table: PageTable) -> None:
        if self._tables.get(table.reservation) is not table:
            raise InternalError(
                "this page table owns nothing here: it was freed before, or belongs to another pool"
            )
