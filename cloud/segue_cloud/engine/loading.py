"""From a Hugging Face directory to an engine, or a refusal that names the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from segue_cloud.engine.paged_attention import NAME
from segue_cloud.engine.torch_engine import TorchEngine
from segue_cloud.kv.layout import KvLayout
from segue_protocol.errors import InvalidRequest, NotFound, Unsupported
from segue_protocol.identity import ModelIdentity

# Families whose attention sees every earlier token, through one plain K and V.
SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")
NUMERICS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def load_engine(path: Path, *, dtype: str = "float32", threads: int = 1) -> TorchEngine:
    """Load weights and identity of a model directory, offline.

    Weights stored in a shorter format are widened exactly. Raises NotFound for
    a missing directory, Unsupported for an architecture this engine cannot
    serve, InvalidRequest for an unknown dtype.
    """
    if dtype not in NUMERICS:
        raise InvalidRequest(f"dtype {dtype!r}, expected one of {', '.join(NUMERICS)}")
    if not (path / "config.json").is_file():
        raise NotFound(
            f"{path} has no config.json; expected a Hugging Face model directory",
            reason="MODEL_FILE_MISSING",
        )
    torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    require_supported(config)
    model = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        dtype=getattr(torch, dtype),
        attn_implementation=NAME,
        local_files_only=True,
    ).eval()
    layout = KvLayout(
        num_layers=config.num_hidden_layers,
        num_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None)
        or config.hidden_size // config.num_attention_heads,
        dtype=dtype,
    )
    identity = ModelIdentity.from_directory(path, numerics=NUMERICS[dtype])
    return TorchEngine(model, identity, layout)


def require_supported(config: Any) -> None:
    """Raise Unsupported, by name, for what the paged attention cannot express."""
    kind = config.model_type
    if kind not in SUPPORTED:
        raise Unsupported(
            f"model type {kind!r} is not supported; this engine serves {', '.join(SUPPORTED)} "
            "with full attention",
            reason="MODEL_TYPE",
        )
    # Qwen states a window it does not use unless use_sliding_window says so.
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True):
        raise Unsupported(
            f"this {kind} model attends through a sliding window of {window} tokens; "
            "only full attention is supported",
            reason="SLIDING_WINDOW",
        )
    if getattr(config, "quantization_config", None) is not None:
        raise Unsupported(
            f"this {kind} model is stored quantized; convert it to float32 or bfloat16 first",
            reason="QUANTIZED",
        )
