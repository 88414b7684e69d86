"""A process that maps published weights and tells what it computes and how it holds them.

Run as a module with the file's place and token ids; prints one JSON object,
then waits for the end of its standard input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from segue_cloud.engine.base import Chunk, CloudEngine
from segue_cloud.kv.memory import MemoryFile

ROOT = Path(__file__).parents[2]


def start_sharer(memory: MemoryFile, ids: list[int]) -> subprocess.Popen[str]:
    place = [str(memory.pid), str(memory.descriptor), memory.incarnation.hex()]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.weights_sharer", *place, json.dumps(ids)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def logits(engine: CloudEngine, ids: list[int]) -> np.ndarray:
    cells = np.zeros(engine.layout.shape(len(ids)), engine.layout.storage_dtype)
    return engine.forward(cells, [Chunk(ids, range(len(ids)), slice(0, len(ids)))])[0]


def mapping(pid: int, inode: int) -> dict[str, int]:
    """How a process maps a file, kB by the kernel's name for each count."""
    counts: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = words[4] == str(inode)
        elif inside and words[-1] == "kB":
            counts[words[0][:-1]] = counts.get(words[0][:-1], 0) + int(words[1])
    return counts


def main() -> None:
    from segue_cloud.engine.shared_weights import attach

    pid, descriptor, incarnation, ids = sys.argv[1:]
    memory = MemoryFile.attach(int(pid), int(descriptor), bytes.fromhex(incarnation))
    found: dict[str, Any] = {"logits": logits(attach(memory), json.loads(ids)).tobytes().hex()}
    print(json.dumps(found), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
