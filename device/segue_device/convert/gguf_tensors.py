"""The weights of a GGUF file, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_device.convert.gguf_architecture import Architecture
from segue_protocol.errors import InvalidRequest, NotFound, Unsupported
from segue_protocol.model_files import read_json

_INDEX_NAME = "model.safetensors.index.json"
_WEIGHTS_NAME = "model.safetensors"
_PARTS = (".weight", ".bias")
_EMBEDDINGS = ("token_embd.weight", "output.weight")

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One tensor of the GGUF file; `load` gives it in fp32, in the order of its rows there."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], Array]


def write_tensors(writer: Any, directory: Path, architecture: Architecture, precision: str) -> None:
    """Write everything a gguf.GGUFWriter has collected, and the weights of `directory` after it.

    Raises NotFound or InvalidRequest for safetensors files that are missing or
    damaged, Unsupported for a tensor that llama.cpp has no place for.
    """
    from gguf.quants import quant_shape_to_byte_shape, quantize

    tensors = list(_tensors(directory, architecture))
    types = [_type(tensor, precision) for tensor in tensors]
    for tensor, kind in zip(tensors, types, strict=True):
        shape = quant_shape_to_byte_shape(tensor.shape, kind)
        # A shape in bytes is what the writer expects of all that is no plain float.
        writer.add_tensor_info(
            tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, kind in zip(tensors, types, strict=True):
        writer.write_tensor_data(quantize(tensor.load(), kind))


def interleave_heads(rows: Array, heads: int) -> Array:
    """Reorder rows [heads * head_dim, ...] from two halves a head to neighbouring pairs."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _tensors(directory: Path, architecture: Architecture) -> Iterator[_Tensor]:
    from gguf import MODEL_ARCH, get_tensor_name_map

    known = get_tensor_name_map(MODEL_ARCH[architecture.name.upper()], architecture.layers)
    for path, source_name, shape in _stored(directory):
        # A tied head may be stored although it is the embeddings; old files hold angles.
        tied = architecture.tied_embeddings and source_name == "lm_head.weight"
        if tied or source_name.endswith("rotary_emb.inv_freq"):
            continue
        name = known.get_name(source_name, try_suffixes=_PARTS)
        if name is None:
            raise Unsupported(
                f"{path} holds {source_name}, for which llama.cpp's {architecture.name!r} has "
                "no place; the model is not what its config.json says",
                reason="TENSOR_UNKNOWN",
            )
        yield _Tensor(name, shape, _loader(path, source_name, _heads(name, architecture)))
    divisors = architecture.rope_divisors
    if divisors is not None:
        yield _Tensor("rope_freqs.weight", divisors.shape, lambda: divisors)


def _heads(name: str, architecture: Architecture) -> int | None:
    """The number of heads whose rows must be reordered, None for a tensor that stays."""
    if not architecture.interleaved_rope:
        return None
    if ".attn_q." in name:
        return architecture.heads
    return architecture.kv_heads if ".attn_k." in name else None


def _stored(directory: Path) -> Iterator[tuple[Path, str, tuple[int, ...]]]:
    """(file, name, shape) of every tensor that transformers would load."""
    from safetensors import SafetensorError, safe_open

    files = {_WEIGHTS_NAME}
    if (directory / _INDEX_NAME).is_file():
        files = set(read_json(directory, _INDEX_NAME).get("weight_map", {}).values())
    for path in sorted(directory / name for name in files):
        if not path.is_file():
            raise NotFound(
                f"{path} is missing; download the whole model", reason="MODEL_FILE_MISSING"
            )
        try:
            with safe_open(path, framework="pt") as file:
                names = sorted(file.keys())
                shapes = [(name, tuple(file.get_slice(name).get_shape())) for name in names]
        except SafetensorError as error:
            raise InvalidRequest(
                f"{path} is no safetensors file: {error}; download it again",
                reason="MODEL_FILE_DAMAGED",
            ) from error
        for name, shape in shapes:
            yield path, name, shape


def _loader(path: Path, name: str, heads: int | None) -> Callable[[], Array]:
    def load() -> Array:
        from safetensors import safe_open

        # Through torch: numpy has no bfloat16, in which most models are stored.
        with safe_open(path, framework="pt") as file:
            rows: Array = file.get_tensor(name).float().numpy()
        return rows if heads is None else interleave_heads(rows, heads)

    return load


def _type(tensor: _Tensor, precision: str) -> Any:
    """The storage of a tensor: norms and biases stay fp32, embeddings lose most below 8 bits."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = {
        "fp32": GGMLQuantizationType.F32,
        "int8": GGMLQuantizationType.Q8_0,
        "int4": GGMLQuantizationType.Q4_0,
    }[precision]
    if kind == GGMLQuantizationType.Q4_0 and tensor.name in _EMBEDDINGS:
        kind = GGMLQuantizationType.Q8_0
    block, _size = GGML_QUANT_SIZES[kind]
    if len(tensor.shape) == 1 or tensor.shape[-1] % block:
        return GGMLQuantizationType.F32
    return kind
