"""torch, ONNX Runtime and llama.cpp write the same answer from the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segue_device.engines import Cancel, DeviceEngine, load_engine
from segue_protocol.identity import exactness_level, require_shared_log
from segue_protocol.tokenizer import ChatTokenizer
from tests.contract.engine_cases import torch_logits

PROMPTS = ["the theory", "12 of the other things, \u00e9t\u00e9", "x = 1212"]
LENGTH = 40
NEAR_TIE = 1e-3


def greedy(engine: DeviceEngine, prompt: list[int]) -> list[int]:
    ids = list(prompt)
    engine.append(ids, list(range(len(ids))), cancel=Cancel())
    while len(ids) < len(prompt) + LENGTH:
        ids.append(int(engine.logits().argmax()))
        engine.append(ids[-1:], [len(ids) - 1], cancel=Cancel())
    return ids


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_answers_are_equal(
    hf_dir: Path, built_dir: Path, gguf_dir: Path, prompt: str
) -> None:
    engines = [load_engine(directory) for directory in (built_dir, gguf_dir)]
    assert not require_shared_log(engines[0].identity, engines[1].identity)
    assert exactness_level(engines[0].identity, engines[1].identity) == 2
    ids = ChatTokenizer.from_directory(gguf_dir).encode(prompt)
    answers = [greedy(engine, ids) for engine in engines]
    assert answers[0] == answers[1]
    # One pass of torch over the answer says what it would have written at each step.
    rows = torch_logits(hf_dir, answers[0], list(range(len(answers[0]))))
    best = np.sort(rows[len(ids) - 1 : -1])
    print(f"smallest margin {float((best[:, -1] - best[:, -2]).min()):.2e}")
    assert (best[:, -1] - best[:, -2]).min() > NEAR_TIE
    assert rows[len(ids) - 1 : -1].argmax(-1).tolist() == answers[0][len(ids) :]
    for engine in engines:
        engine.close()


def test_tokenizers_agree(hf_dir: Path, built_dir: Path, gguf_dir: Path) -> None:
    # llama.cpp's own tokenizer is compared in test_gguf.py.
    ours = [ChatTokenizer.from_directory(each) for each in (hf_dir, built_dir, gguf_dir)]
    for text in PROMPTS:
        messages = [{"role": "user", "content": text}]
        assert len({tuple(each.encode_chat(messages)) for each in ours}) == 1
    assert len({each.vocabulary.digest for each in ours}) == 1
