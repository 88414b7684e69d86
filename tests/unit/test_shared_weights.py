"""Several processes compute with one copy of the weights, the same bits as with their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from segue_cloud.engine.loading import load_engine
from segue_cloud.engine.shared_weights import attach, publish
from segue_cloud.kv.memory import MemoryFile
from segue_protocol.errors import InternalError
from tests.unit.engine_models import FAMILIES, VOCAB_SIZE, write_model
from tests.unit.weights_sharer import logits, mapping, start_sharer

IDS = np.random.default_rng(0).integers(0, VOCAB_SIZE, 50).tolist()


def attached(memory: MemoryFile) -> MemoryFile:
    return MemoryFile.attach(memory.pid, memory.descriptor, memory.incarnation)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_logits_bit_for_bit(tmp_path: Path, family: str, tied: bool, dtype: str) -> None:
    own = load_engine(write_model(tmp_path / "tiny", family, tie_word_embeddings=tied), dtype=dtype)
    memory = publish(own)
    shared = attach(attached(memory))
    assert (logits(shared, IDS) == logits(own, IDS)).all()
    assert (shared.identity, shared.layout) == (own.identity, own.layout)
    assert shared.max_context_tokens == own.max_context_tokens
    head, embedding = shared.model.lm_head.weight, shared.model.model.embed_tokens.weight
    assert (head is embedding) == tied
    memory.close()


def test_nobody_writes_to_published_weights(tmp_path: Path) -> None:
    memory = publish(load_engine(write_model(tmp_path / "tiny")))
    with pytest.raises(ValueError, match="read-only"):
        memory.data[0] = 1
    with pytest.raises(PermissionError):
        MemoryFile.attach(memory.pid, memory.descriptor, memory.incarnation, writable=True)
    with pytest.raises(PermissionError):
        os.pwrite(memory.descriptor, b"x", 4096)
    memory.close()


def test_two_processes_hold_the_weights_once(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", hidden_size=1024, intermediate_size=2048)
    own = load_engine(model)
    expected = logits(own, IDS).tobytes().hex()
    memory = publish(own)
    weights_kb = len(memory.data) / 1024
    inode = os.fstat(memory.descriptor).st_ino
    memory.freeze()  # maps it anew: what this process has written of it counts no more
    with start_sharer(memory, IDS) as sharer:
        assert json.loads(sharer.stdout.readline())["logits"] == expected
        here = attached(memory)
        assert logits(attach(here), IDS).tobytes().hex() == expected
        for pid in (os.getpid(), sharer.pid):
            found = mapping(pid, inode)
            assert found["Rss"] > 0.9 * weights_kb, "a forward pass reads every weight"
            assert found["Pss"] < 0.55 * found["Rss"]
            assert found["Private_Clean"] + found["Private_Dirty"] < 0.05 * weights_kb
        sharer.stdin.close()
    memory.close()


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    engine = load_engine(write_model(tmp_path / "tiny"))
    engine.model.register_buffer("extra", torch.zeros(1))
    memory = publish(engine)
    with pytest.raises(InternalError, match="extra"):
        attach(attached(memory))
    memory.close()
