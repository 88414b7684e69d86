"""NIXL as used here: one agent, no progress thread, calls one at a time.

NIXL's own progress thread takes a whole core also when idle, so that nothing
here moves unless somebody polls. UCX otherwise listens on every network device.
"""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any

import numpy as np

from segue_protocol.errors import Unsupported

# The device that reaches nobody else.
LOOPBACK = "lo"
# Between two looks at an unfinished read, at either end.
POLL_S = 0.0002
_KIND = "DRAM"


class NixlAgent:
    """One agent with the backend UCX on the network devices `devices`.

    Raises Unsupported where NIXL is not installed or has no UCX. Every method
    may raise one of NIXL's exceptions, which have no base class but Exception.
    """

    def __init__(self, name: str, devices: str) -> None:
        # Read by UCX when its context is made; what it would complain of arrives as errors.
        os.environ["UCX_NET_DEVICES"] = devices
        os.environ.setdefault("UCX_LOG_LEVEL", "fatal")
        os.environ.setdefault("NIXL_LOG_LEVEL", "FATAL")
        try:
            api = importlib.import_module("nixl._api")
        except ImportError as error:
            raise Unsupported(
                f"transfer nixl needs NIXL: install segue-cloud[rdma] ({error})", reason="NO_NIXL"
            ) from error
        self.lock = threading.Lock()
        configuration = api.nixl_agent_config(enable_prog_thread=False, backends=[])
        try:
            self._agent: Any = api.nixl_agent(name, configuration)
            # Without peer errors a read from a killed process can wait for ever.
            self._agent.create_backend("UCX", {"ucx_error_handling_mode": "peer"})
        except Exception as error:
            raise Unsupported(f"NIXL has no UCX here: {error}", reason="NO_NIXL") from error

    def register(self, address: int, size: int) -> Any:
        """Let `size` bytes from `address` on take part in transfers."""
        with self.lock:
            return self._agent.register_memory([(address, size, 0, "")], _KIND)

    def deregister(self, registration: Any) -> None:
        with self.lock:
            self._agent.deregister_memory(registration)

    def metadata(self) -> bytes:
        """What peers need to know; says what is registered by now."""
        with self.lock:
            made: bytes = self._agent.get_agent_metadata()
            return made

    def add_peer(self, metadata: bytes) -> str:
        """Returns the peer's name."""
        with self.lock:
            name: str | bytes = self._agent.add_remote_agent(metadata)
            return name.decode() if isinstance(name, bytes) else name

    def remove_peer(self, name: str) -> None:
        with self.lock:
            self._agent.remove_remote_agent(name)

    def poll(self) -> None:
        """Let transfers of peers go on."""
        with self.lock:
            self._agent.get_new_notifs()

    def read(self, peer: str, runs: list[tuple[int, int, int]]) -> NixlRead:
        """Begin to copy (from there, to here, bytes) each."""
        table = np.array(runs, np.uint64).reshape(-1, 3)
        # Address, bytes, device 0.
        local, remote = np.zeros_like(table), np.zeros_like(table)
        local[:, :2], remote[:, :2] = table[:, 1:], table[:, ::2]
        with self.lock:
            agent = self._agent
            handle = agent.initialize_xfer(
                "READ",
                agent.get_xfer_descs(local, _KIND),
                agent.get_xfer_descs(remote, _KIND),
                peer,
            )
            return NixlRead(self, handle, agent.transfer(handle) == "DONE")

    def done(self, handle: Any) -> bool:
        """Whether a read has ended well. Raises when it has failed."""
        with self.lock:
            state = self._agent.check_xfer_state(handle)
            if state not in ("DONE", "PROC"):
                raise RuntimeError(f"the transfer is in state {state}")
            return bool(state == "DONE")

    def backend_of(self, handle: Any) -> str:
        with self.lock:
            return str(self._agent.query_xfer_backend(handle))

    def release(self, handle: Any) -> None:
        with self.lock:
            handle.release()


class NixlRead:
    """A read on its way. Whoever drops it before it is done gives its memory up for good."""

    def __init__(self, agent: NixlAgent, handle: Any, done: bool) -> None:
        self._agent = agent
        self._handle = handle
        self._done = done

    def done(self) -> bool:
        """Whether all bytes are here. Raises when they will not come."""
        self._done = self._done or self._agent.done(self._handle)
        return self._done

    @property
    def backend(self) -> str:
        """What NIXL chose."""
        return self._agent.backend_of(self._handle)

    def release(self) -> None:
        """Free what NIXL holds for it; only when it is done or has failed."""
        self._agent.release(self._handle)
