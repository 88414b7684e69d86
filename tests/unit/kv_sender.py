"""A prefill side in a process of its own, told what to do over its standard input.

One JSON object a line in, one line out: the ticket in hex. Run as a module it
is the child; :class:`Sender` is the handle in the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from segue_cloud.kv.contiguous import Slot, SlotPool
from segue_cloud.kv.layout import KvLayout
from segue_protocol.wire import private

ROOT = Path(__file__).parents[2]


class Sender:
    """Context manager: the child lives inside it and is dead after it."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.kv_sender"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    @property
    def pid(self) -> int:
        return self._child.pid

    def random_ticket(self, layout: KvLayout, tokens: int, seed: int) -> private.KvTicket:
        """A ticket for cells drawn from `seed` (see :func:`random_cells`)."""
        return self._ask(layout=layout.to_wire().SerializeToString().hex(), n=tokens, seed=seed)

    def prefill_ticket(self, model: Path, ids: list[int]) -> private.KvTicket:
        """A ticket for the prefilled `ids`."""
        return self._ask(model=str(model), ids=ids)

    def release(self, slot: int) -> None:
        self._ask(release=slot)

    def kill(self) -> None:
        """SIGKILL, and wait until it is a zombie, which nobody has reaped yet."""
        self._child.kill()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def _ask(self, **command: Any) -> private.KvTicket:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        assert answer, "the sender died"
        return private.KvTicket.FromString(bytes.fromhex(answer))


def random_cells(layout: KvLayout, tokens: int, seed: int) -> Any:
    """Cells [layers, 2, tokens, kv_heads, head_dim] that both processes can make."""
    drawn = np.random.default_rng(seed).standard_normal(layout.shape(tokens))
    return (drawn * 1000).astype(layout.storage_dtype)


def _serve() -> None:
    pool: SlotPool | None = None
    slots: dict[int, Slot] = {}
    for line in sys.stdin:
        command = json.loads(line)
        answer = b""
        if "release" in command:
            assert pool is not None
            pool.release(slots.pop(command["release"]))
        else:
            pool, slot = _model_slot(command) if "model" in command else _random_slot(pool, command)
            slots[slot.index] = slot
            answer = slot.ticket("full").SerializeToString()
        print(answer.hex(), flush=True)


def _random_slot(pool: SlotPool | None, command: dict[str, Any]) -> tuple[SlotPool, Slot]:
    message = private.KvLayout.FromString(bytes.fromhex(command["layout"]))
    pool = pool or SlotPool(KvLayout.from_wire(message), slots=2, max_tokens=256)
    slot = pool.acquire(command["n"])
    assert slot is not None
    slot.cells[:] = random_cells(pool.layout, slot.tokens, command["seed"])
    return pool, slot


def _model_slot(command: dict[str, Any]) -> tuple[SlotPool, Slot]:
    from segue_cloud.engine.base import Chunk
    from segue_cloud.engine.loading import load_engine

    engine, ids = load_engine(command["model"]), command["ids"]
    pool = SlotPool(engine.layout, slots=1, max_tokens=len(ids))
    slot = pool.acquire(len(ids))
    assert slot is not None
    engine.forward(slot.cells, [Chunk(ids, range(len(ids)), slice(0, len(ids)))])
    return pool, slot


if __name__ == "__main__":
    _serve()
