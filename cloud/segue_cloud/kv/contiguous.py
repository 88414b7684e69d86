"""The sender's side: one contiguous buffer a request.

A prefill worker holds the KV of each of its requests in one run of bytes, so
that a receiver copies it in few large pieces and the ticket stays small however
many tokens it covers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from segue_cloud.kv.backends.base import Sender
from segue_cloud.kv.backends.shm import ShmSender
from segue_cloud.kv.digest import KINDS, DigestKind, digest_cells
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.memory import PAGE_BYTES, MemoryFile
from segue_protocol.errors import InternalError, InvalidRequest, OutOfRange
from segue_protocol.wire import private


def require_slot_size(tokens: int, max_tokens: int) -> None:
    """Raise what :meth:`SlotPool.acquire` does for a number of tokens."""
    if tokens < 1:
        raise InvalidRequest(f"a slot holds at least one token, got {tokens}")
    if tokens > max_tokens:
        raise OutOfRange(
            f"{tokens} tokens do not fit a prefill slot of {max_tokens}; "
            "shorten the prompt or start the worker with larger slots",
            reason="KV_SLOT_TOO_SMALL",
        )


class Slot:
    """The buffer of one request, from :meth:`SlotPool.acquire` to :meth:`SlotPool.release`."""

    def __init__(self, pool: SlotPool, index: int, generation: int, tokens: int) -> None:
        self.index = index
        self.generation = generation
        self.tokens = tokens
        self._pool = pool

    @property
    def cells(self) -> Cells:
        """Writable view [layers, 2, tokens, kv_heads, head_dim]; cell i is token i."""
        return self._pool.cells_of(self)

    def where(self, tokens: int) -> slice:
        """In which of `cells` the first `tokens` tokens lie."""
        return slice(0, tokens)

    def ticket(self, digest: DigestKind = "sampled") -> private.KvTicket:
        """Where to pull these cells from; take it once every cell is written."""
        return self._pool.ticket_of(self, digest)

    def early_ticket(self) -> private.KvTicket:
        """For these cells before they are written: readers follow :meth:`layer_done`."""
        return self._pool.early_ticket_of(self)

    def layer_done(self, layers: int) -> None:
        """The first `layers` layers are written, for every token, and will not change."""
        self._pool.set_layers_done(self, layers)


class SlotPool:
    """``slots`` buffers of up to ``max_tokens`` tokens each in one memory file.

    Used from one thread. Raises InvalidRequest for sizes below one.
    """

    def __init__(
        self,
        layout: KvLayout,
        slots: int,
        max_tokens: int,
        *,
        incarnation: bytes | None = None,
        sender: Callable[[MemoryFile], Sender] = lambda memory: ShmSender(),
        shared: bool = True,
    ) -> None:
        """`sender`: makes this side's end of a transfer backend; not `shared`: it maps nothing."""
        if slots < 1 or max_tokens < 1:
            raise InvalidRequest(
                f"a slot pool needs at least one slot of one token, got {slots} slots "
                f"of {max_tokens} tokens"
            )
        self.layout = layout
        self.slots = slots
        self.max_tokens = max_tokens
        self._stride_bytes = -(-layout.bytes_per_token * max_tokens // PAGE_BYTES) * PAGE_BYTES
        self._memory = MemoryFile.create(
            slots=slots,
            data_bytes=slots * self._stride_bytes,
            incarnation=incarnation,
            shared=shared,
        )
        self._sender = sender(self._memory)
        self._free = list(range(slots))[::-1]
        self._held: dict[int, Slot] = {}
        self._generations = [0] * slots

    @property
    def incarnation(self) -> bytes:
        return self._memory.incarnation

    @property
    def used(self) -> int:
        """Slots held now."""
        return len(self._held)

    def acquire(self, tokens: int, place: private.KvPlace | None = None) -> Slot | None:
        """A slot for `tokens` tokens, or None when all are taken (nobody waits here).

        Its cells hold whatever was there before. Raises OutOfRange for more
        tokens than a slot has room for, InvalidRequest for fewer than one or
        for a `place`, which is in somebody else's pool.
        """
        require_slot_size(tokens, self.max_tokens)
        if place is not None:
            raise InvalidRequest("this worker shares no page pool; send it a job without a place")
        if not self._free:
            return None
        index = self._free.pop()
        self._memory.layers_done[index] = 0
        slot = Slot(self, index, self._generations[index], tokens)
        self._held[index] = slot
        return slot

    def release(self, slot: Slot) -> None:
        """Take the slot back; its tickets are stale from here on.

        Raises InternalError for a slot that is not held.
        """
        self._require_held(slot)
        # Counted up before the slot can be given away: a reader that sees the
        # old number after its copy has copied the old content.
        self._sender.withdraw(slot.index)
        self._generations[slot.index] += 1
        self._memory.generations[slot.index] = self._generations[slot.index]
        del self._held[slot.index]
        self._free.append(slot.index)

    def cells_of(self, slot: Slot) -> Cells:
        """See :attr:`Slot.cells`. Raises InternalError after the release."""
        self._require_held(slot)
        shape = self.layout.shape(slot.tokens)
        start = slot.index * self._stride_bytes
        run = self._memory.data[start : start + slot.tokens * self.layout.bytes_per_token]
        assert run.size == math.prod(shape) * self.layout.storage_dtype.itemsize
        return run.view(self.layout.storage_dtype).reshape(shape)

    def ticket_of(self, slot: Slot, digest: DigestKind) -> private.KvTicket:
        """See :meth:`Slot.ticket`. Raises InternalError after the release."""
        cells = self.cells_of(slot)
        ticket = self._plain_ticket(slot)
        kind = max(digest, self._sender.least_digest, key=KINDS.index)
        ticket.digest_kind = kind
        ticket.digest = digest_cells(cells, None, self.layout, kind)
        self._sender.offer(ticket)
        return ticket

    def early_ticket_of(self, slot: Slot) -> private.KvTicket:
        """See :meth:`Slot.early_ticket`. Raises InternalError after the release."""
        self._require_held(slot)
        ticket = self._plain_ticket(slot)
        ticket.early = True
        self._sender.offer(ticket)
        return ticket

    def set_layers_done(self, slot: Slot, layers: int) -> None:
        """See :meth:`Slot.layer_done`. Raises InternalError after the release."""
        self._require_held(slot)
        self._memory.layers_done[slot.index] = layers

    def _plain_ticket(self, slot: Slot) -> private.KvTicket:
        layer_bytes = 2 * slot.tokens * self.layout.row_bytes
        start = slot.index * self._stride_bytes
        return private.KvTicket(
            pid=self._memory.pid,
            descriptor=self._memory.descriptor,
            incarnation=self._memory.incarnation,
            slot=slot.index,
            generation=slot.generation,
            layout=self.layout.to_wire(),
            token_count=slot.tokens,
            layers=[
                private.LayerSpan(
                    offset_bytes=start + layer * layer_bytes, length_bytes=layer_bytes
                )
                for layer in range(self.layout.num_layers)
            ],
        )

    def check_integrity(self) -> None:
        """Raise InternalError unless every slot is free or held exactly once."""
        if sorted([*self._free, *self._held]) != list(range(self.slots)):
            raise InternalError(
                f"slots free {self._free} and held {list(self._held)} do not add up"
            )
        if self._memory.generations.tolist() != self._generations:
            raise InternalError("slot generations in shared memory are not those counted here")
        self._memory.require_intact()

    def close(self) -> None:
        """Free the memory; every ticket is void. May be called again."""
        self._sender.close()
        self._memory.close()

    def _require_held(self, slot: Slot) -> None:
        if self._held.get(slot.index) is not slot:
            raise InternalError(
                f"slot {slot.index}, generation {slot.generation}, is not held: it was released "
                "before, or belongs to another pool"
            )
