"""Backend ``nixl``: RDMA where there is a NIC, one copy through the kernel within a host.

The receiver reads whole layers into a staging buffer and scatters from there.
So few long descriptors are posted, the second copy runs out of the cache, and
no page is ever the target of a read: a read over TCP that did not end may write
into its buffer much later, even when its handle was released and the memory
deregistered. Such a buffer is quarantined: kept, registered and unused, until
the read ends well or NIXL says that the peer is gone.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.backends.base import Deadline, bad_ticket, incompatible, peer_gone, require_use
from segue_cloud.kv.backends.nixl_agent import POLL_S, NixlAgent, NixlRead
from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.memory import HEADER_BYTES, PAGE_BYTES, MemoryFile, header_incarnation
from segue_protocol.errors import TransferError
from segue_protocol.wire import private

LOOPBACK = "lo"
# Layers are read together up to this size, several reads ahead of the scatter: an
# end of a read takes a poll of the sender, and what was read is still in the cache.
BATCH_BYTES = 4 << 20
READS_AHEAD = 3
MAX_QUARANTINED = 8
# How long a sender answers after its last slot was released, so that a late
# receiver learns at once that its ticket is stale.
LINGER_S = 1.0
MAX_PEERS = 64

_WORD_BYTES = 8
# (from there, to here, bytes)
_Runs = list[tuple[int, int, int]]

# Agents whose reads never ended: with them NIXL would free what may still be written to.
_abandoned: list[object] = []


class NixlSender:
    """Serves the slots of one memory file; a thread polls while a slot is offered."""

    def __init__(self, memory: MemoryFile, devices: str = LOOPBACK) -> None:
        # On one host UCX copies through the kernel; between hosts it may use TCP.
        self.least_digest: DigestKind = "off" if devices == LOOPBACK else "full"
        self._agent = NixlAgent(f"segue-{memory.incarnation.hex()}", devices)
        base = memory.generations.ctypes.data - HEADER_BYTES
        end = memory.data.ctypes.data + len(memory.data)
        # The views keep the file mapped until the registration is gone.
        self._mapped: tuple[npt.NDArray[Any], ...] = (memory.generations, memory.data)
        self._registration = self._agent.register(base, end - base)
        self._source = private.NixlSource(
            metadata=self._agent.metadata(),
            data_address=memory.data.ctypes.data,
            generations_address=memory.generations.ctypes.data,
            layers_done_address=memory.layers_done.ctypes.data,
        )
        self._offered: set[int] = set()
        self._poll_until_s = 0.0
        self._closed = False
        self._changed = threading.Condition()
        self._polling = threading.Thread(target=self._poll, name="segue-kv-nixl", daemon=True)
        self._polling.start()

    def offer(self, ticket: private.KvTicket) -> None:
        ticket.nixl.CopyFrom(self._source)
        with self._changed:
            self._offered.add(ticket.slot)
            self._changed.notify()

    def withdraw(self, slot: int) -> None:
        with self._changed:
            if slot in self._offered:
                self._offered.remove(slot)
                self._poll_until_s = time.monotonic() + LINGER_S

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify()
        self._polling.join()
        self._agent.deregister(self._registration)
        self._mapped = ()

    def _poll(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._offered or self._lingers()):
                    self._changed.wait()
                if self._closed:
                    return
            self._agent.poll()
            time.sleep(POLL_S)

    def _lingers(self) -> bool:
        return time.monotonic() < self._poll_until_s


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
        layer_bytes = ticket.layers[0].length_bytes
        together = max(1, BATCH_BYTES // layer_bytes)
        batches = min(READS_AHEAD, -(-layout.num_layers // together))
        staging = self._room(PAGE_BYTES + batches * together * layer_bytes)
        peer = self._peer(ticket)
        try:
            done = self._check(peer, ticket, staging, deadline)
            stop = min(done, layout.num_layers) if ticket.early else layout.num_layers
            starts = range(first, stop, together)
            shape = layout.shape(ticket.token_count)[1:]
            for turn in range(len(starts)):
                # As far ahead as there are batches whose layers were taken.
                for ahead in range(turn + len(staging.reads), min(turn + batches, len(starts))):
                    spans = ticket.layers[starts[ahead] : min(starts[ahead] + together, stop)]
                    offset = PAGE_BYTES + ahead % batches * together * layer_bytes
                    self._post(peer, ticket, staging, _runs(ticket, spans, staging, offset))
                self._end_first(peer, ticket, staging, deadline)
                offset = PAGE_BYTES + turn % batches * together * layer_bytes
                for _ in range(starts[turn], min(starts[turn] + together, stop)):
                    run = staging.bytes[offset : offset + layer_bytes]
                    yield run.view(layout.storage_dtype).reshape(shape)
                    offset += layer_bytes
            self._check(peer, ticket, staging, deadline)
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

    def _check(
        self, peer: str, ticket: private.KvTicket, staging: _Staging, deadline: Deadline
    ) -> int:
        """The layers that are done. Raises TransferError unless the slot is in the ticket's use."""
        source, place = ticket.nixl, _WORD_BYTES * ticket.slot
        here = staging.address
        words = [
            (source.generations_address + place, here, _WORD_BYTES),
            (source.layers_done_address + place, here + _WORD_BYTES, _WORD_BYTES),
            (source.generations_address - HEADER_BYTES, here + 2 * _WORD_BYTES, HEADER_BYTES),
        ]
        self._post(peer, ticket, staging, words)
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


def _runs(
    ticket: private.KvTicket, spans: Sequence[private.LayerSpan], staging: _Staging, offset: int
) -> _Runs:
    """The reads of some layers into a buffer from `offset` on; neighbours as one."""
    joined: _Runs = []
    here = staging.address + offset
    for span in spans:
        there = ticket.nixl.data_address + span.offset_bytes
        if joined and sum(joined[-1][::2]) == there:
            joined[-1] = (*joined[-1][:2], joined[-1][2] + span.length_bytes)
        else:
            joined.append((there, here, span.length_bytes))
        here += span.length_bytes
    return joined
