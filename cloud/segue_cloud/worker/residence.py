"""Where a resident process keeps what its workers share, and how they get at it."""

from __future__ import annotations

from dataclasses import dataclass

from segue_cloud.engine.base import CloudEngine
from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.memory import MemoryFile
from segue_cloud.kv.shared_pool import SharedPagePool
from segue_protocol.errors import InvalidRequest

NO_WEIGHTS = -1


@dataclass(frozen=True, slots=True)
class Residence:
    """Memory files of process `pid`, both of one incarnation; emulated engines have no weights."""

    pid: int
    incarnation: bytes
    pool_descriptor: int
    weights_descriptor: int = NO_WEIGHTS

    def __str__(self) -> str:
        """As `--resident` takes it."""
        numbers = (self.pid, self.pool_descriptor, self.weights_descriptor)
        return ":".join([*map(str, numbers), self.incarnation.hex()])

    @classmethod
    def parse(cls, text: str) -> Residence:
        """Raises InvalidRequest unless `text` is a residence."""
        try:
            pid, pool, weights, incarnation = text.split(":")
            return cls(int(pid), bytes.fromhex(incarnation), int(pool), int(weights))
        except ValueError:
            raise InvalidRequest(
                f"resident is {text!r}, expected what a worker of the role unified gives to those "
                "it starts; start that one instead"
            ) from None

    def engine(self, *, threads: int) -> CloudEngine:
        """An engine over the weights. Raises TransferError when the process is gone."""
        from segue_cloud.engine.shared_weights import attach

        memory = MemoryFile.attach(self.pid, self.weights_descriptor, self.incarnation)
        return attach(memory, threads=threads)

    def pool(self, layout: KvLayout, pages: int, page_tokens: int) -> SharedPagePool:
        """A seat at the page pool. Raises TransferError when the process is gone."""
        memory = MemoryFile.attach(self.pid, self.pool_descriptor, self.incarnation, writable=True)
        return SharedPagePool(memory, layout, pages, page_tokens)
