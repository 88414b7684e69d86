"""Backend ``nixl``, the prefill side: memory that receivers read, kept answering by a thread."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy.typing as npt

from segue_cloud.kv.backends.nixl_agent import LOOPBACK, POLL_S, NixlAgent
from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.memory import HEADER_BYTES, MemoryFile
from segue_protocol.wire import private

# How long a sender answers after its last slot was released, so that a late
# receiver learns at once that its ticket is stale.
LINGER_S = 1.0


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
