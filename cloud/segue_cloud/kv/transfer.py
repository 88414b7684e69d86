"""Pulling the KV of one request: contiguous at the sender, scattered here.

A :class:`KvPuller` does what is the same for every backend (``kv/backends``).
Whatever fails raises TransferError, and nothing that was copied may be used:

==================  =========================================================
reason              meaning
==================  =========================================================
KV_TICKET           the ticket contradicts itself or the reservation
KV_LAYOUT           another model, dtype or version; the message names which
KV_BACKEND          the sender moves KV in another way than this worker
KV_PEER_GONE        the sender ended or closed its memory
KV_PEER_DENIED      the sender runs as another user, or is not of the cluster
KV_VERSION          the sender's memory has another format
KV_INCARNATION      another process answers in the sender's place
KV_STALE            the slot was released, before or during the copy
KV_REPLAYED         the ticket was used before; each is good for one transfer
KV_DEADLINE         the sender did not deliver in time
KV_QUARANTINE       too many buffers wait for reads that never ended
KV_DIGEST           what arrived is not what was sent
==================  =========================================================
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.backends.base import Deadline, Reader, bad_ticket
from segue_cloud.kv.backends.shm import ShmReader
from segue_cloud.kv.digest import KINDS, DigestKind, digest_cells
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.scatter import Scatter
from segue_protocol.errors import InternalError, InvalidRequest, TransferError
from segue_protocol.wire import private

DEADLINE_S = 5.0
# Slots of senders whose last use is remembered; older ones are stale anyway.
_CLAIMS = 1 << 16


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What one pull moved; seconds on this process' clock."""

    bytes: int
    seconds: float


class KvPuller:
    """Copies what tickets name into local pages. Used from one thread."""

    def __init__(
        self,
        reader: Reader | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`reader`: shared memory by default. `deadline_s` bounds every read."""
        self.reader: Reader = reader or ShmReader()
        self.failures: Counter[str] = Counter()
        self.clock = clock
        self._deadline_s = deadline_s
        self._claims: OrderedDict[tuple[bytes, int], int] = OrderedDict()

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
        with self._counting(ticket):
            fetch = self._begin(ticket, layout, pool_cells, cell_numbers)
            kind = _digest_of(ticket, digest)
            if not self._advance(fetch):
                raise bad_ticket("it is an early one, and the layers are not done")
            fetch.require_digest(ticket, kind)
        return fetch.result(self.clock())

    def begin(
        self,
        ticket: private.KvTicket,
        layout: KvLayout,
        pool_cells: Cells,
        cell_numbers: npt.NDArray[np.int64],
    ) -> Fetch:
        """As :meth:`pull`, in steps: :meth:`advance` until it is complete, then :meth:`finish`."""
        with self._counting(ticket):
            return self._begin(ticket, layout, pool_cells, cell_numbers)

    def advance(self, fetch: Fetch) -> bool:
        """Copy the layers that are done by now; True once that is all. Raises TransferError."""
        with self._counting(fetch.ticket):
            return self._advance(fetch)

    def finish(self, fetch: Fetch, ticket: private.KvTicket, digest: DigestKind) -> TransferResult:
        """Compare with the final ticket what came by an early one. Raises TransferError."""
        with self._counting(ticket):
            kind = _digest_of(ticket, digest)
            if _use(ticket) != _use(fetch.ticket) or ticket.layers != fetch.ticket.layers:
                raise bad_ticket("it is not for what the early ticket announced")
            fetch.require_digest(ticket, kind)
        return fetch.result(self.clock())

    def describe(self, status: private.WorkerStatus) -> None:
        """Say in a worker's status how KV moves, and what failed."""
        status.transfer = self.reader.name
        status.quarantined_bytes = self.reader.quarantined_bytes
        for reason, count in sorted(self.failures.items()):
            status.transfer_failures.add(reason=reason, count=count)

    def close(self) -> None:
        """Give everything held of other processes up; may be called again."""
        self.reader.close()

    def _begin(
        self,
        ticket: private.KvTicket,
        layout: KvLayout,
        pool_cells: Cells,
        cell_numbers: npt.NDArray[np.int64],
    ) -> Fetch:
        layout.require_equal(KvLayout.from_wire(ticket.layout))
        _check_target(layout, pool_cells, cell_numbers)
        _check_ticket(ticket, layout, len(cell_numbers))
        return Fetch(ticket, layout, pool_cells, cell_numbers, self.clock())

    def _advance(self, fetch: Fetch) -> bool:
        deadline = Deadline(self._deadline_s, self.clock)
        for piece in self.reader.read(fetch.ticket, fetch.layout, fetch.layers, deadline):
            if fetch.rows == 0:
                self._claim(fetch.ticket)
            fetch.take(piece)
        return fetch.layers == fetch.layout.num_layers

    def _claim(self, ticket: private.KvTicket) -> None:
        """Raise TransferError (KV_REPLAYED) unless this is the first transfer of its slot's use."""
        slot = (ticket.incarnation, ticket.slot)
        if self._claims.get(slot, -1) >= ticket.generation:
            raise TransferError(
                f"the ticket for use {ticket.generation} of slot {ticket.slot} of process "
                f"{ticket.pid} was used before; prefill again",
                reason="KV_REPLAYED",
            )
        self._claims[slot] = ticket.generation
        self._claims.move_to_end(slot)
        if len(self._claims) > _CLAIMS:
            self._claims.popitem(last=False)

    @contextmanager
    def _counting(self, ticket: private.KvTicket) -> Iterator[None]:
        try:
            yield
        except TransferError as error:
            self.failures[error.reason] += 1
            self.reader.forget(ticket)
            raise


class Fetch:
    """The layers of one ticket on their way into pages."""

    def __init__(
        self,
        ticket: private.KvTicket,
        layout: KvLayout,
        pool_cells: Cells,
        cell_numbers: npt.NDArray[np.int64],
        started_s: float,
    ) -> None:
        self.ticket = ticket
        self.layout = layout
        # Of keys and of values, one a token and layer.
        self.rows = 0
        self._pool_cells = pool_cells
        self._cell_numbers = cell_numbers
        self._scatter = Scatter(cell_numbers, pool_cells.shape[2])
        self._started_s = started_s

    @property
    def layers(self) -> int:
        """Those that are complete."""
        return self.rows // (2 * self.ticket.token_count)

    def take(self, piece: Cells) -> None:
        """Put the next rows, [n, kv_heads, head_dim] of one plane, where they belong."""
        plane, first = divmod(self.rows, self.ticket.token_count)
        self._scatter.copy(piece, first, self._pool_cells[plane // 2, plane % 2])
        self.rows += len(piece)

    def require_digest(self, ticket: private.KvTicket, kind: DigestKind) -> None:
        """Raise TransferError (KV_DIGEST) unless the pages hold what the sender had."""
        arrived = digest_cells(self._pool_cells, self._cell_numbers, self.layout, kind)
        if kind != "off" and arrived != ticket.digest:
            raise TransferError(
                f"the {kind} digest of {ticket.token_count} tokens from process {ticket.pid} does "
                "not match what arrived; prefill again",
                reason="KV_DIGEST",
            )

    def result(self, now_s: float) -> TransferResult:
        moved_bytes = self.ticket.token_count * self.layout.bytes_per_token
        return TransferResult(moved_bytes, now_s - self._started_s)


def _use(ticket: private.KvTicket) -> tuple[bytes, int, int]:
    return ticket.incarnation, ticket.slot, ticket.generation


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


def _check_ticket(ticket: private.KvTicket, layout: KvLayout, tokens: int) -> None:
    """Raise TransferError for a ticket that cannot be honoured."""
    if ticket.token_count != tokens or tokens < 1:
        raise bad_ticket(f"it covers {ticket.token_count} tokens, {tokens} were expected")
    if len(ticket.layers) != layout.num_layers:
        raise bad_ticket(f"it has {len(ticket.layers)} layers, not {layout.num_layers}")
    layer_bytes = 2 * tokens * layout.row_bytes
    for layer, span in enumerate(ticket.layers):
        if span.length_bytes != layer_bytes:
            raise bad_ticket(f"layer {layer} has {span.length_bytes} bytes, not {layer_bytes}")
        if span.offset_bytes % layout.storage_dtype.itemsize:
            raise bad_ticket(f"layer {layer} starts inside a number, at {span.offset_bytes}")


def _digest_of(ticket: private.KvTicket, wanted: DigestKind) -> DigestKind:
    """The digest to verify. Raises TransferError (KV_DIGEST) for a weaker one than `wanted`."""
    if wanted not in KINDS:
        raise InvalidRequest(f"KV digest {wanted!r} is unknown; use one of {', '.join(KINDS)}")
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
