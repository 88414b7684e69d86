"""A device without memory gives a typed error, in a process of its own whose memory is bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segue_device.convert import convert_to_gguf
from tests.processes import TINY, device_model

PROLOGUE = """
import resource, sys
import numpy as np
from segue_device.engines import Cancel, load_engine
from segue_protocol.errors import InternalError

def bound(more_bytes):
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more_bytes, resource.RLIM_INFINITY))

def refused(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except InternalError as error:
        assert error.reason == "OUT_OF_MEMORY", error
        assert "has no memory for" in error.message
    else:
        raise SystemExit("there was memory enough")

def append(engine, count):
    start = len(engine.cells)
    engine.append([7] * count, range(start, start + count), cancel=Cancel())
"""
LOAD = """
load_engine(sys.argv[1]).close()  # libraries are loaded, the rest is the model
bound(int(sys.argv[2]))
refused(load_engine, sys.argv[1])
"""
APPEND = """
engine = load_engine(sys.argv[1], chunk_tokens=2048)
append(engine, 400)
expected = engine.logits()
bound(int(sys.argv[2]))
refused(append, engine, 2000)
assert len(engine.cells) == 400
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
engine.rewind(399)
append(engine, 1)
assert np.abs(engine.logits() - expected).max() < 1e-3
append(engine, 2000)
engine.close()
"""


def run(code: str, model: Path, more_bytes: int) -> None:
    arguments = [sys.executable, "-c", PROLOGUE + code, str(model), str(more_bytes)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("code", "more_bytes"),
    # Its cells take 64 MB, a chunk of 2,000 tokens some more.
    [(LOAD, 10_000_000), (APPEND, 4_000_000), (APPEND, 40_000_000)],
    ids=["load", "cells", "chunk"],
)
def test_onnx(code: str, more_bytes: int) -> None:
    run(code, device_model(), more_bytes)


@pytest.mark.parametrize("more_bytes", [10_000_000, 30_000_000], ids=["weights", "cells"])
def test_llama_cpp_allocates_all_when_it_is_loaded(tmp_path: Path, more_bytes: int) -> None:
    run(LOAD, convert_to_gguf(TINY, tmp_path / "gguf"), more_bytes)
