"""Inputs and helpers that the tests of device engines share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from segue_device.engines import (
    Cancel,
    DeviceEngine,
)
from segue_protocol.timeline import DeviceProfile

CHUNK = 16
CONTEXT = 96
IDS = np.random.default_rng(7).integers(3, 250, CONTEXT).tolist()
COMPACT = list(range(CONTEXT))
# Three runs kept of a longer prompt, at their original positions.
GAPPED = [*range(0, 20), *range(31, 60), *range(200, 247)]

Make = Callable[..., DeviceEngine]


PROFILE = DeviceProfile(
    prefill_base_s=1.0,
    prefill_per_token_s=0.5,
    prefill_per_token2_s=0.25,
    decode_s=2.0,
    handover_s=0.0,
)


class CancelAt(Cancel):
    """Sets itself when it is asked for the n-th time: a cancel between two chunks."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self._left = asked

    def is_set(self) -> bool:
        self._left -= 1
        if self._left == 0:
            self.set()
        return super().is_set()


class CancelBehind(Cancel):
    """Sets itself right after it was asked for the first time: a cancel inside a chunk."""

    def is_set(self) -> bool:
        found = super().is_set()
        self.set()
        return found


def torch_logits(hf_dir: Path, ids: list[int], positions: list[int]) -> np.ndarray:
    """Logits [tokens, vocab] of transformers in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(hf_dir, dtype=torch.float32).eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), position_ids=torch.tensor([positions]))
    return out.logits[0].numpy()


def after(engine: DeviceEngine, *appends: tuple[list[int], list[int]]) -> np.ndarray:
    for ids, positions in appends:
        engine.append(ids, positions, cancel=Cancel())
    return engine.logits()


def assert_same(engine: DeviceEngine, got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape == (engine.identity.vocab_size,)
    assert got.dtype == np.float32
    if engine.identity.model == "segue-reference":
        assert np.array_equal(got, expected)
    else:
        assert np.abs(got - expected).max() < 1e-4
        assert got.argmax() == expected.argmax()
