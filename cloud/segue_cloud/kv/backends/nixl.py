"""Backend ``nixl``: RDMA where there is a NIC, one copy through the kernel within a host.

The receiver reads long contiguous pieces into a small staging buffer and scatters
from there. So few descriptors are posted, the second copy runs out of the cache,
and no page is ever the target of a read: over TCP one that did not end may write
into its buffer much later, even when its handle was released and the memory
deregistered. Such a buffer is quarantined: kept, registered and unused, until
the read ends well or NIXL says that the peer is gone.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.backends.base import (
    PIECE_BYTES,
    Deadline,
    bad_ticket,
    incompatible,
    peer_gone,
    piece_tokens,
    require_use,
)
from segue_cloud.kv.backends.nixl_agent import LOOPBACK, POLL_S, NixlAgent, NixlRead
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.memory import HEADER_BYTES, PAGE_BYTES, header_incarnation
from segue_protocol.errors import TransferError
from segue_protocol.wire import private

# Reads ahead of the scatter: over TCP the end of one takes a poll of the sender.
READS_AHEAD = 3
MAX_QUARANTINED = 8
MAX_PEERS = 64

_WORD_BYTES = 8
# (offset in the sender's data, bytes)
_Pieces = list[tuple[int, int]]
# (from there, to here, bytes)
_Runs = list[tuple[int, int, int]]

# Agents whose reads never ended: with them NIXL would free what may still be written to.
_abandoned: list[object] = []


@dataclass(eq=False, slots=True)
class _Staging:
    """A registered buffer, and the reads into it; its first page is for the sender's counters."""

    bytes: npt.NDArray[np.uint8]
    registration: Any
    reads: deque[NixlRead] = field(default_factory=deque)

    @property
    def address(self) -> int:
        return int(self.bytes.ctypes.data)


class NixlReader:
    """Reads slots of other processes through one agent."""

    def __init__(self, devices: str = LOOPBACK) -> None:
        self._agent = NixlAgent(f"segue-reader-{secrets.token_hex(16)}", devices)
        self._devices = devices
        self._backend = ""
        self._peers: dict[str, bytes] = {}
        self._gone: set[str] = set()
        self._staging: _Staging | None = None
        self._unfinished: list[tuple[str, _Staging]] = []

    @property
    def name(self) -> str:
        return f"nixl ({self._backend or 'nothing moved yet'}, {self._devices})"

    @property
    def attachments(self) -> int:
        return len(self._peers)

    @property
    def quarantined_bytes(self) -> int:
        return sum(len(staging.bytes) for _, staging in self._unfinished)

    def read(
        self, ticket: private.KvTicket, layout: KvLayout, first: int, deadline: Deadline
    ) -> Iterator[Cells]:
        if ticket.WhichOneof("source") != "nixl":
            raise incompatible(ticket, "nixl")
        self._settle()
        room = max(PIECE_BYTES, piece_tokens(layout) * layout.row_bytes)
        staging = self._room(PAGE_BYTES + READS_AHEAD * room)
        shape = layout.shape(-1)[2:]
        peer = self._peer(ticket)
        try:
            self._begin_check(peer, ticket, staging)
            stop = layout.num_layers
            if ticket.early:
                stop = min(stop, self._end_check(peer, ticket, staging, deadline))
                self._begin_check(peer, ticket, staging)
            batches = _batches(ticket, layout, first, stop)
            posted = 0
            for turn, batch in enumerate(batches):
                # As far ahead as there is room that was scattered.
                while posted < min(turn + READS_AHEAD, len(batches)):
                    offset = PAGE_BYTES + posted % READS_AHEAD * room
                    self._post(
                        peer, ticket, staging, _runs(ticket, batches[posted], staging, offset)
                    )
                    posted += 1
                if turn == 0:
                    self._end_check(peer, ticket, staging, deadline)
                self._end_first(peer, ticket, staging, deadline)
                if batch is batches[-1]:
                    # All bytes are here: the slot is looked at while the last are scattered.
                    self._begin_check(peer, ticket, staging)
                offset = PAGE_BYTES + turn % READS_AHEAD * room
                for _, size in batch:
                    piece = staging.bytes[offset : offset + size]
                    yield piece.view(layout.storage_dtype).reshape(shape)
                    offset += size
            self._end_check(peer, ticket, staging, deadline)
        finally:
            if staging.reads:
                self._unfinished.append((peer, staging))
                self._staging = None
        self._settle()

    def forget(self, ticket: private.KvTicket) -> None:
        # One that lives is kept: UCX holds a socket of every connection that was
        # given up until the other side ends.
        peer = f"segue-{ticket.incarnation.hex()}"
        if peer in self._gone:
            self._remove(peer)

    def close(self) -> None:
        self._settle()
        if self._unfinished:
            _abandoned.append(self)
            return
        for peer in list(self._peers):
            self._remove(peer)
        self._retire()

    def _begin_check(self, peer: str, ticket: private.KvTicket, staging: _Staging) -> None:
        """Ask for what the sender's memory says of the slot."""
        source, place = ticket.nixl, _WORD_BYTES * ticket.slot
        here = staging.address
        words = [
            (source.generations_address + place, here, _WORD_BYTES),
            (source.layers_done_address + place, here + _WORD_BYTES, _WORD_BYTES),
            (source.generations_address - HEADER_BYTES, here + 2 * _WORD_BYTES, HEADER_BYTES),
        ]
        self._post(peer, ticket, staging, words)

    def _end_check(
        self, peer: str, ticket: private.KvTicket, staging: _Staging, deadline: Deadline
    ) -> int:
        """The layers that are done. Raises TransferError unless the slot is in the ticket's use."""
        self._end_first(peer, ticket, staging, deadline)
        header = staging.bytes[2 * _WORD_BYTES : 2 * _WORD_BYTES + HEADER_BYTES].tobytes()
        if header_incarnation(header) != ticket.incarnation:
            raise TransferError(
                f"process {ticket.pid} is not the one that issued the ticket; prefill again",
                reason="KV_INCARNATION",
            )
        generation, layers = staging.bytes[: 2 * _WORD_BYTES].view("<u8").tolist()
        require_use(generation, ticket)
        return int(layers)

    def _post(self, peer: str, ticket: private.KvTicket, staging: _Staging, runs: _Runs) -> None:
        try:
            staging.reads.append(self._agent.read(peer, runs))
        except Exception as error:  # NIXL's have no base class of their own
            self._gone.add(peer)
            raise peer_gone(ticket, error) from error

    def _end_first(
        self, peer: str, ticket: private.KvTicket, staging: _Staging, deadline: Deadline
    ) -> None:
        """Wait for the oldest read into this buffer."""
        read = staging.reads[0]
        try:
            while not read.done():
                deadline.left_s()
                time.sleep(POLL_S)
        except TransferError:
            raise
        except Exception as error:
            self._gone.add(peer)
            raise peer_gone(ticket, error) from error
        self._backend = self._backend or read.backend
        staging.reads.popleft().release()

    def _peer(self, ticket: private.KvTicket) -> str:
        """The sender's agent. One that restarted under its old name replaces what was known."""
        name, metadata = f"segue-{ticket.incarnation.hex()}", ticket.nixl.metadata
        if self._peers.get(name) == metadata:
            return name
        self._remove(name)
        if len(self._peers) >= MAX_PEERS:
            self._remove(next(iter(self._peers)))
        try:
            found = self._agent.add_peer(metadata)
        except Exception as error:  # also where nobody listens at its address any more
            raise peer_gone(ticket, error) from error
        self._peers[found] = metadata
        if found != name:
            self._remove(found)
            raise bad_ticket(f"its metadata is that of {found!r}")
        return name

    def _remove(self, peer: str) -> None:
        # With a read unfinished the connection stays: it must be able to end.
        if any(peer == waiting for waiting, _ in self._unfinished):
            return
        self._gone.discard(peer)
        if self._peers.pop(peer, None) is not None:
            self._agent.remove_peer(peer)

    def _room(self, size: int) -> _Staging:
        if len(self._unfinished) >= MAX_QUARANTINED:
            raise TransferError(
                f"{len(self._unfinished)} buffers wait for reads from frozen senders; end these",
                reason="KV_QUARANTINE",
            )
        if self._staging is None or len(self._staging.bytes) < size:
            self._retire()
            memory = np.empty(size, np.uint8)
            registration = self._agent.register(int(memory.ctypes.data), size)
            self._staging = _Staging(memory, registration)
        return self._staging

    def _retire(self) -> None:
        if self._staging is not None:
            self._agent.deregister(self._staging.registration)
            self._staging = None

    def _settle(self) -> None:
        """Free the buffers whose reads have ended, one way or the other."""
        for entry in list(self._unfinished):
            _, staging = entry
            while staging.reads and _ended(staging.reads[0]):
                staging.reads.popleft().release()
            if not staging.reads:
                self._agent.deregister(staging.registration)
                self._unfinished.remove(entry)


def _ended(read: NixlRead) -> bool:
    try:
        return read.done()
    except Exception:  # the peer is gone, and with it whoever could write
        return True


def _batches(ticket: private.KvTicket, layout: KvLayout, first: int, stop: int) -> list[_Pieces]:
    """The pieces of some layers, in order; those of one batch are read together."""
    step_bytes = piece_tokens(layout) * layout.row_bytes
    batches: list[_Pieces] = []
    left_bytes = 0
    for span in ticket.layers[first:stop]:
        plane_bytes = span.length_bytes // 2
        for plane in range(span.offset_bytes, span.offset_bytes + span.length_bytes, plane_bytes):
            for start in range(0, plane_bytes, step_bytes):
                size = min(step_bytes, plane_bytes - start)
                if size > left_bytes:
                    batches.append([])
                    left_bytes = max(PIECE_BYTES, step_bytes)
                batches[-1].append((plane + start, size))
                left_bytes -= size
    return batches


def _runs(ticket: private.KvTicket, batch: _Pieces, staging: _Staging, offset: int) -> _Runs:
    """The reads of a batch into a buffer from `offset` on; neighbours as one."""
    joined: _Runs = []
    here = staging.address + offset
    for start, size in batch:
        there = ticket.nixl.data_address + start
        if joined and joined[-1][0] + joined[-1][2] == there:
            joined[-1] = (*joined[-1][:2], joined[-1][2] + size)
        else:
            joined.append((there, here, size))
        here += size
    return joined
