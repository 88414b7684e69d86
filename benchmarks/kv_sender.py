"""A prefill side in a process of its own, with any transfer backend, for benchmarks and tests.

One JSON object a line over its standard input, one line back. Run as a module it
is the child; :class:`RemoteSender` is the handle.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from segue_cloud.engine.base import Chunk
from segue_cloud.kv.backends.base import Reader, Sender, TransferName
from segue_cloud.kv.backends.nixl import NixlReader
from segue_cloud.kv.backends.nixl_sender import NixlSender
from segue_cloud.kv.backends.shm import ShmReader, ShmSender
from segue_cloud.kv.backends.tcp import TcpReader, TcpSecurity
from segue_cloud.kv.backends.tcp_sender import TcpSender
from segue_cloud.kv.contiguous import Slot, SlotPool
from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.memory import MemoryFile
from segue_protocol.wire import private

ROOT = Path(__file__).parents[1]
LAYOUT = KvLayout(num_layers=3, num_kv_heads=2, head_dim=8, dtype="float32")
SECURITY = TcpSecurity("a token that only these processes share")


def make_reader(backend: TransferName) -> Reader:
    return {"shm": ShmReader, "tcp": lambda: TcpReader(SECURITY), "nixl": NixlReader}[backend]()


def make_sender(backend: TransferName, memory: MemoryFile) -> Sender:
    if backend == "shm":
        return ShmSender()
    return TcpSender(memory, SECURITY) if backend == "tcp" else NixlSender(memory)


def random_cells(layout: KvLayout, tokens: int, seed: int) -> Any:
    """Cells [layers, 2, tokens, kv_heads, head_dim] that both processes can make."""
    cells = np.empty(layout.shape(tokens), layout.storage_dtype)
    _fill(cells, seed)
    return cells


def _fill(cells: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for layer in cells:
        # Small bytes make numbers of every kind, and never one that differs from itself.
        drawn = rng.integers(0, 64, layer.nbytes, np.uint8)
        layer[:] = drawn.view(cells.dtype).reshape(layer.shape)


class RemoteSender:
    """Context manager: the child lives inside it and is dead after it."""

    def __init__(
        self,
        backend: TransferName,
        layout: KvLayout = LAYOUT,
        *,
        slots: int = 32,
        max_tokens: int = 1024,
        incarnation: bytes | None = None,
    ) -> None:
        options = {
            "backend": backend,
            "slots": slots,
            "max_tokens": max_tokens,
            "layout": layout.to_wire().SerializeToString().hex(),
            "incarnation": (incarnation or os.urandom(16)).hex(),
        }
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kv_sender", json.dumps(options)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> RemoteSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()

    @property
    def pid(self) -> int:
        return self._child.pid

    def ticket(self, tokens: int, seed: int, digest: str = "full") -> private.KvTicket:
        """A ticket for cells drawn from `seed` (see :func:`random_cells`)."""
        answer = self.ask(acquire=tokens, seed=seed, digest=digest)
        return private.KvTicket.FromString(bytes.fromhex(answer))

    def ticket_as_before(self, tokens: int) -> private.KvTicket:
        """A ticket without digest for what lies in the slot already."""
        answer = self.ask(acquire=tokens, seed=None, digest="off")
        return private.KvTicket.FromString(bytes.fromhex(answer))

    def prefilled_ticket(self, model: Path, ids: list[int]) -> private.KvTicket:
        """A ticket for the prefill of `ids` by the model, whose layout is the sender's."""
        return private.KvTicket.FromString(bytes.fromhex(self.ask(model=str(model), ids=ids)))

    def early_ticket(self, tokens: int, seed: int) -> private.KvTicket:
        return private.KvTicket.FromString(
            bytes.fromhex(self.ask(acquire=tokens, seed=seed, early=True))
        )

    def final_ticket(self, slot: int) -> private.KvTicket:
        return private.KvTicket.FromString(bytes.fromhex(self.ask(final=slot)))

    def layers_done(self, slot: int, layers: int) -> None:
        self.ask(done=slot, layers=layers)

    def release(self, slot: int) -> None:
        self.ask(release=slot)

    def damage(self, slot: int) -> None:
        """Flip one bit of the last layer's last value, after the ticket was made."""
        self.ask(damage=slot)

    def cpu_s(self) -> float:
        """Processor time it has used."""
        return float(self.ask(cpu=True))

    def kill(self, *, reap: bool = True) -> None:
        """SIGKILL, and wait for its end; not reaped, it stays a zombie."""
        self._child.kill()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        if reap:
            self._child.wait()

    def freeze(self) -> None:
        self._child.send_signal(signal.SIGSTOP)
        # Until it has really stopped, it may still answer.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def ask(self, **command: Any) -> str:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        assert answer, "the sender died"
        return answer.strip()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _serve(options: dict[str, Any]) -> None:
    layout = KvLayout.from_wire(private.KvLayout.FromString(bytes.fromhex(options["layout"])))
    backend: Any = options["backend"]
    pool = SlotPool(
        layout,
        options["slots"],
        options["max_tokens"],
        incarnation=bytes.fromhex(options["incarnation"]),
        sender=lambda memory: make_sender(backend, memory),
        shared=backend == "shm",
    )
    slots: dict[int, Slot] = {}
    for line in sys.stdin:
        command = json.loads(line)
        print(_obey(command, pool, slots), flush=True)


def _obey(command: dict[str, Any], pool: SlotPool, slots: dict[int, Slot]) -> str:
    if "acquire" in command:
        slot = pool.acquire(command["acquire"])
        assert slot is not None
        slots[slot.index] = slot
        if command["seed"] is not None:
            _fill(slot.cells, command["seed"])
        early = command.get("early", False)
        ticket = slot.early_ticket() if early else slot.ticket(command["digest"])
        return ticket.SerializeToString().hex()
    if "model" in command:
        from segue_cloud.engine.loading import load_engine  # torch: seconds

        engine, ids = load_engine(command["model"]), command["ids"]
        slot = pool.acquire(len(ids))
        assert slot is not None
        slots[slot.index] = slot
        engine.forward(slot.cells, [Chunk(ids, range(len(ids)), slice(0, len(ids)))])
        return slot.ticket("full").SerializeToString().hex()
    if "used" in command:
        return str(pool.used)
    if "cpu" in command:
        return str(time.process_time())
    if "final" in command:
        return slots[command["final"]].ticket("full").SerializeToString().hex()
    if "release" in command:
        pool.release(slots.pop(command["release"]))
    elif "done" in command:
        slots[command["done"]].layer_done(command["layers"])
    elif "damage" in command:
        slots[command["damage"]].cells.view(np.uint8)[-1, -1, -1, -1, -1] ^= 1
    elif "descriptors" in command:
        return str(_descriptors())
    return ""


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
