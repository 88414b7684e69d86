"""Pulling the KV of one request: contiguous at the sender, scattered here.

Backend ``shm``: both workers on one host, one copy, no dependency. Whatever
fails raises TransferError, and nothing that was copied may be used:

==================  =========================================================
reason              meaning
==================  =========================================================
KV_TICKET           the ticket contradicts itself or the reservation
KV_LAYOUT           another model, dtype or version; the message names which
KV_PEER_GONE        the sender ended or closed its memory
KV_PEER_DENIED      the sender runs as another user
KV_VERSION          the sender's memory has another format
KV_INCARNATION      another process answers to the sender's pid
KV_STALE            the slot was released, before or during the copy
KV_DIGEST           what arrived is not what was sent
==================  =========================================================
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.digest import KINDS, DigestKind, digest_cells
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.memory import MemoryFile
from segue_protocol.errors import InternalError, InvalidRequest, TransferError
from segue_protocol.wire import private

_Source = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What one pull moved; seconds on this process' clock."""

    bytes: int
    seconds: float


class KvPuller:
    """Copies what tickets name into local pages; keeps its attachments until :meth:`close`.

    Used from one thread.
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._attached: dict[_Source, MemoryFile] = {}

    @property
    def attachments(self) -> int:
        """Memory files of other processes mapped here now."""
        return len(self._attached)

    def pull(
        self,
        ticket: private.KvTicket,
        layout: KvLayout,
        pool_cells: Cells,
        cell_numbers: npt.NDArray[np.int64],
        *,
        digest: DigestKind = "sampled",
    ) -> TransferResult:
        """Copy the ticket's tokens into the cells `cell_numbers` of `pool_cells`.

        ``pool_cells`` is [layers, 2, n_cells, kv_heads, head_dim] in `layout`;
        ``cell_numbers`` is int64 [ticket.token_count] and distinct. `digest` is
        the least that the ticket must carry; what it carries is verified, unless
        `digest` is ``off``. Raises TransferError (see the module), after which
        the content of these cells is undefined.
        """
        started_s = self._clock()
        layout.require_equal(KvLayout.from_wire(ticket.layout))
        _check_target(layout, pool_cells, cell_numbers)
        kind = _check_ticket(ticket, layout, len(cell_numbers), digest)
        source = (ticket.pid, ticket.descriptor, ticket.incarnation)
        try:
            memory = self._attach(source)
            _check_current(memory, ticket)
            _copy(_layers(memory, ticket, layout), pool_cells, cell_numbers)
            _check_current(memory, ticket)
        except TransferError:
            self._drop(source)
            raise
        if kind != "off" and digest_cells(pool_cells, cell_numbers, layout, kind) != ticket.digest:
            self._drop(source)
            raise TransferError(
                f"the {kind} digest of {ticket.token_count} tokens from process {ticket.pid} does "
                "not match what arrived; prefill again",
                reason="KV_DIGEST",
            )
        moved_bytes = ticket.token_count * layout.bytes_per_token
        return TransferResult(moved_bytes, self._clock() - started_s)

    def close(self) -> None:
        """Give every attachment up; may be called again."""
        for source in list(self._attached):
            self._drop(source)

    def _attach(self, source: _Source) -> MemoryFile:
        if source not in self._attached:
            # A new sender is the moment when an old one may have died: its
            # memory stays allocated until it is unmapped here.
            for other in list(self._attached):
                if not _alive(self._attached[other]):
                    self._drop(other)
            self._attached[source] = MemoryFile.attach(*source)
        memory = self._attached[source]
        memory.require_owner_alive()
        return memory

    def _drop(self, source: _Source) -> None:
        memory = self._attached.pop(source, None)
        if memory is not None:
            memory.close()


def _alive(memory: MemoryFile) -> bool:
    try:
        memory.require_owner_alive()
    except TransferError:
        return False
    return True


def _check_target(layout: KvLayout, pool_cells: Cells, cell_numbers: npt.NDArray[np.int64]) -> None:
    """Raise InternalError unless the cells to write exist and look as `layout` says."""
    n_cells = pool_cells.shape[2] if pool_cells.ndim == 5 else 0
    if pool_cells.shape != layout.shape(n_cells) or pool_cells.dtype != layout.storage_dtype:
        raise InternalError(
            f"the pool's cells are {pool_cells.dtype} {pool_cells.shape}, "
            f"{layout.storage_dtype} {layout.shape(n_cells)} was expected"
        )
    if len(cell_numbers) and not (cell_numbers.min() >= 0 and cell_numbers.max() < n_cells):
        raise InternalError(f"cell numbers lie outside the pool of {n_cells} cells")


def _check_ticket(
    ticket: private.KvTicket, layout: KvLayout, tokens: int, wanted: DigestKind
) -> DigestKind:
    """The digest to verify; TransferError for a ticket that cannot be honoured."""
    if wanted not in KINDS:
        raise InvalidRequest(f"KV digest {wanted!r} is unknown; use one of {', '.join(KINDS)}")
    if ticket.token_count != tokens or tokens < 1:
        raise _bad_ticket(f"it covers {ticket.token_count} tokens, {tokens} were expected")
    if len(ticket.layers) != layout.num_layers:
        raise _bad_ticket(f"it has {len(ticket.layers)} layers, not {layout.num_layers}")
    layer_bytes = 2 * tokens * layout.row_bytes
    for layer, span in enumerate(ticket.layers):
        if span.length_bytes != layer_bytes:
            raise _bad_ticket(f"layer {layer} has {span.length_bytes} bytes, not {layer_bytes}")
        if span.offset_bytes % layout.storage_dtype.itemsize:
            raise _bad_ticket(f"layer {layer} starts inside a number, at {span.offset_bytes}")
    if wanted == "off":
        return "off"
    for kind in KINDS[KINDS.index(wanted) :]:
        if kind == ticket.digest_kind:
            return kind
    raise TransferError(
        f"the ticket carries the digest {ticket.digest_kind!r}, at least {wanted!r} is required; "
        "configure sender and receiver alike",
        reason="KV_DIGEST",
    )


def _check_current(memory: MemoryFile, ticket: private.KvTicket) -> None:
    """Raise TransferError unless the slot is still in the use the ticket was made for."""
    memory.require_intact()
    if ticket.slot >= len(memory.generations):
        raise _bad_ticket(f"slot {ticket.slot} does not exist")
    current = int(memory.generations[ticket.slot])
    if current != ticket.generation:
        raise TransferError(
            f"slot {ticket.slot} of process {ticket.pid} is in use {current}, the ticket is for "
            f"use {ticket.generation}: it was released; prefill again",
            reason="KV_STALE",
        )


def _layers(memory: MemoryFile, ticket: private.KvTicket, layout: KvLayout) -> list[Cells]:
    """The sender's cells, one [2, tokens, kv_heads, head_dim] a layer."""
    ends = [span.offset_bytes + span.length_bytes for span in ticket.layers]
    if max(ends) > len(memory.data):
        raise _bad_ticket(f"it ends at byte {max(ends)} of {len(memory.data)}")
    shape = layout.shape(ticket.token_count)[1:]
    return [
        memory.data[end - span.length_bytes : end].view(layout.storage_dtype).reshape(shape)
        for span, end in zip(ticket.layers, ends, strict=True)
    ]


def _copy(layers: list[Cells], pool_cells: Cells, cell_numbers: npt.NDArray[np.int64]) -> None:
    """Scatter, one copy per run of consecutive cells (at least a page) and layer."""
    breaks = np.flatnonzero(np.diff(cell_numbers) != 1) + 1
    starts = [0, *breaks.tolist()]
    stops = [*breaks.tolist(), len(cell_numbers)]
    cells = cell_numbers[starts].tolist()
    for source, target in zip(layers, pool_cells, strict=True):
        for start, stop, cell in zip(starts, stops, cells, strict=True):
            target[:, cell : cell + stop - start] = source[:, start:stop]


def _bad_ticket(what: str) -> TransferError:
    return TransferError(f"the KV ticket is not usable: {what}; prefill again", reason="KV_TICKET")
