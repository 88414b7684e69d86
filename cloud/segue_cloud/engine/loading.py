"""From a Hugging Face directory to an engine, or a refusal that names the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from segue_cloud.engine.paged_attention import NAME
from segue_cloud.engine.support import require_full_attention, require_supported_type
from segue_cloud.engine.torch_engine import TorchEngine
from segue_cloud.kv.layout import KvLayout
from segue_protocol.errors import InvalidRequest, Unsupported
from segue_protocol.identity import ModelIdentity
from segue_protocol.model_files import read_json

NUMERICS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_DEVICES = ("cpu", "cuda", "npu")


def load_engine(
    path: str | Path, *, device: str = "cpu", dtype: str = "float32", threads: int = 1
) -> TorchEngine:
    """Load weights and identity of a model directory; offline, no code from it, no pickle.

    Weights stored in a shorter format are widened exactly. `threads` is set
    for the whole process. On a `device` other than the CPU the cells stay in
    host memory. Raises NotFound for a missing file, InvalidRequest for a
    damaged one or an unknown argument, Unsupported for what this engine or
    this machine cannot serve.
    """
    if dtype not in NUMERICS:
        raise InvalidRequest(f"dtype is {dtype!r}, expected one of {', '.join(NUMERICS)}")
    if threads < 1:
        raise InvalidRequest(f"threads is {threads}, expected at least 1")
    target = _device(device)
    directory = Path(path)
    require_supported_type(read_json(directory, "config.json"))
    identity = ModelIdentity.from_directory(directory, numerics=NUMERICS[dtype])
    torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        config = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
        require_full_attention(config)
        model = _load_weights(directory, config, getattr(torch, dtype))
    except (OSError, ValueError, TypeError, StrictDataclassError, SafetensorError) as error:
        raise InvalidRequest(
            f"the model in {directory} cannot be loaded: {error}; download it again",
            reason="MODEL_FILE_DAMAGED",
        ) from error
    layout = KvLayout(
        num_layers=config.num_hidden_layers,
        num_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None)
        or config.hidden_size // config.num_attention_heads,
        dtype=dtype,
    )
    return TorchEngine(model.eval().to(target), identity, layout)


def _load_weights(directory: Path, config: Any, dtype: torch.dtype) -> Any:
    """The model; ValueError when config and weights do not fit each other.

    transformers only logs tensors that are missing, and puts random numbers in
    their place, or that it has no use for.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        directory,
        config=config,
        dtype=dtype,
        attn_implementation=NAME,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # reported below, with the tensor's name
        output_loading_info=True,
    )
    model, info = loaded
    for what in ("missing", "mismatched", "unexpected"):
        if found := info[f"{what}_keys"]:
            raise ValueError(f"{what} tensors, e.g. {min(map(str, found))}")
    return model


def _device(name: str) -> torch.device:
    if name.partition(":")[0] not in _DEVICES:
        raise InvalidRequest(f"device is {name!r}, expected one of {', '.join(_DEVICES)}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Unsupported(
            f"torch {torch.__version__} cannot use the device {name!r} here "
            f"({str(error).splitlines()[0]}); use 'cpu', or a torch built for that device",
            reason="DEVICE",
        ) from error
    return device
