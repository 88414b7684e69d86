"""Small models with random weights, one of every family the torch engine serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.unit.model_directory import byte_level_tokenizer

VOCAB_SIZE = 320
FAMILIES = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}


def write_model(
    directory: Path, family: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """A complete model directory: two layers, grouped queries, head_dim 64."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 192,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 256,
        # Weights large enough that no two logits are near.
        "initializer_range": 0.15,
        "eos_token_id": 256,
    }
    if family == "qwen2":
        del settings["head_dim"]
        settings["hidden_size"] = 256
    if family == "mistral":
        settings["sliding_window"] = None
    config = FAMILIES[family](**{**settings, **changes})
    AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(directory)
    (directory / "tokenizer.json").write_text(json.dumps(byte_level_tokenizer()), encoding="utf-8")
    return directory


def edit_config(directory: Path, **changes: Any) -> Path:
    """Overwrite entries of config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return directory


def transformers_model(directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The same weights in transformers' own attention."""
    return AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="sdpa"
    ).eval()
