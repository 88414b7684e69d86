"""Backend ``shm``: both workers on one host, one copy, no dependency."""

from __future__ import annotations

from collections.abc import Iterator

from segue_cloud.kv.backends.base import Deadline, bad_ticket, incompatible, require_use
from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.memory import MemoryFile
from segue_protocol.errors import TransferError
from segue_protocol.wire import private

_Source = tuple[int, int, bytes]


class ShmSender:
    """The memory file itself is what receivers read: nothing to do."""

    least_digest: DigestKind = "off"

    def offer(self, ticket: private.KvTicket) -> None:
        pass

    def withdraw(self, slot: int) -> None:
        pass

    def close(self) -> None:
        pass


class ShmReader:
    """Maps the memory files of other processes; keeps them until :meth:`close`.

    A frozen sender changes nothing: its memory can be read all the same.
    """

    name = "shm"
    quarantined_bytes = 0

    def __init__(self) -> None:
        self._attached: dict[_Source, MemoryFile] = {}

    @property
    def attachments(self) -> int:
        return len(self._attached)

    def read(
        self, ticket: private.KvTicket, layout: KvLayout, first: int, deadline: Deadline
    ) -> Iterator[Cells]:
        if ticket.WhichOneof("source") is not None:
            raise incompatible(ticket, "shm")
        memory = self._attach(_source(ticket))
        _check_current(memory, ticket)
        end = max(span.offset_bytes + span.length_bytes for span in ticket.layers)
        if end > len(memory.data):
            raise bad_ticket(f"it ends at byte {end} of {len(memory.data)}")
        stop = int(memory.layers_done[ticket.slot]) if ticket.early else layout.num_layers
        shape = layout.shape(ticket.token_count)[1:]
        for span in ticket.layers[first:stop]:
            run = memory.data[span.offset_bytes : span.offset_bytes + span.length_bytes]
            yield from run.view(layout.storage_dtype).reshape(shape)
        _check_current(memory, ticket)

    def forget(self, ticket: private.KvTicket) -> None:
        self._drop(_source(ticket))

    def close(self) -> None:
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


def _source(ticket: private.KvTicket) -> _Source:
    return ticket.pid, ticket.descriptor, ticket.incarnation


def _alive(memory: MemoryFile) -> bool:
    try:
        memory.require_owner_alive()
    except TransferError:
        return False
    return True


def _check_current(memory: MemoryFile, ticket: private.KvTicket) -> None:
    memory.require_intact()
    if ticket.slot >= len(memory.generations):
        raise bad_ticket(f"slot {ticket.slot} does not exist")
    require_use(int(memory.generations[ticket.slot]), ticket)
