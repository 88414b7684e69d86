"""Where a prefill worker writes K/V: a buffer of its own, or pages of a shared pool.

The two are :class:`~segue_cloud.kv.contiguous.SlotPool`, whose tickets are
pulled, and :class:`~segue_cloud.kv.place.PlacedSlots`, where nothing is moved.
"""

from __future__ import annotations

from typing import Any, Protocol

from segue_cloud.engine.base import CellIndex
from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.layout import Cells
from segue_protocol.wire import private


class Slot(Protocol):
    """Room for the K/V of one prompt, from `acquire` to `release`."""

    @property
    def cells(self) -> Cells:
        """Writable, [layers, 2, cells, kv_heads, head_dim]; only some may be this slot's."""
        ...

    def where(self, tokens: int) -> CellIndex | slice:
        """In which of `cells` the first `tokens` tokens lie."""
        ...

    def ticket(self, digest: DigestKind = "sampled") -> private.KvTicket:
        """How the decode side gets at them; take it once every cell is written."""
        ...


class Slots(Protocol):
    """Some slots; a place is pinned or a buffer held while one is acquired."""

    @property
    def slots(self) -> int: ...

    @property
    def used(self) -> int: ...

    def acquire(self, tokens: int, place: private.KvPlace | None = None) -> Slot | None:
        """Room for `tokens` tokens, at `place` where pages are shared; None when all are taken.

        Raises OutOfRange for more tokens than a slot takes, InvalidRequest for
        none or for a place where none belongs, TransferError for a place that is
        no reservation.
        """
        ...

    def release(self, slot: Any) -> None:
        """Give back what `acquire` returned."""
        ...

    def check_integrity(self) -> None:
        """Raise InternalError unless every slot is accounted for."""
        ...
