"""One copy of the weights for several processes: a frozen memory file that all of them map.

The file holds everything an engine is made of, so that a process which maps it
runs what its creator has loaded, whatever happened to the directory since:
u64 length of the table, the table (JSON), then the tensors. Parameters that a
model ties are stored once.

A sum of floating-point numbers depends on where in a vector register it begins.
So every tensor lies as far from a multiple of 64 bytes as the one it is a copy
of: then the logits are the same bit for bit.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from segue_cloud.engine.paged_attention import NAME
from segue_cloud.engine.torch_engine import TorchEngine
from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.memory import MemoryFile
from segue_protocol.errors import InternalError
from segue_protocol.identity import ModelIdentity
from segue_protocol.wire import private, public

_VECTOR_BYTES = 64
_LENGTH_BYTES = 8


def publish(engine: TorchEngine, *, incarnation: bytes | None = None) -> MemoryFile:
    """Copy the engine's weights into a new file that nobody can write to."""
    places: dict[int, int] = {}  # of a tensor's first byte in this process
    tensors: dict[str, Any] = {}
    copies: list[tuple[int, torch.Tensor]] = []
    end = 0
    for name, tensor in _named(engine.model):
        address = tensor.data_ptr()
        if address not in places:
            at = places[address] = _aligned(end) + address % _VECTOR_BYTES
            copies.append((at, tensor.detach()))
            end = at + tensor.nbytes
        dtype = str(tensor.dtype).removeprefix("torch.")
        tensors[name] = {"at": places[address], "dtype": dtype, "shape": list(tensor.shape)}
    table = json.dumps(
        {
            "identity": engine.identity.to_wire().SerializeToString().hex(),
            "layout": engine.layout.to_wire().SerializeToString().hex(),
            "config": engine.model.config.to_dict(),
            "tensors": tensors,
        }
    ).encode()
    start = _aligned(_LENGTH_BYTES + len(table))
    memory = MemoryFile.create(slots=1, data_bytes=start + end, incarnation=incarnation)
    memory.data[:_LENGTH_BYTES] = np.frombuffer(np.uint64(len(table)).tobytes(), np.uint8)
    memory.data[_LENGTH_BYTES : _LENGTH_BYTES + len(table)] = np.frombuffer(table, np.uint8)
    for at, tensor in copies:
        flat = tensor.contiguous().view(-1).view(torch.uint8)
        memory.data[start + at : start + at + len(flat)] = flat.numpy()
    memory.freeze()
    return memory


def attach(memory: MemoryFile, *, threads: int = 1) -> TorchEngine:
    """An engine over the weights of a published file; reads no other file.

    `threads` is set for the whole process. Raises InternalError when the file
    holds other tensors than the model wants.
    """
    torch.set_num_threads(threads)
    length = int(memory.data[:_LENGTH_BYTES].view("<u8")[0])
    table = json.loads(memory.data[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes())
    tensors = memory.data[_aligned(_LENGTH_BYTES + length) :]
    layout = KvLayout.from_wire(private.KvLayout.FromString(bytes.fromhex(table["layout"])))
    identity = public.ModelIdentity.FromString(bytes.fromhex(table["identity"]))
    model = _skeleton(table["config"], getattr(torch, layout.dtype))
    wanted = {name for name, _ in _named(model)}
    if wanted != set(table["tensors"]):
        differing = min(wanted ^ set(table["tensors"]))
        raise InternalError(f"the shared weights do not fit the model: {differing}")
    parameters: dict[int, torch.nn.Parameter] = {}
    for name, entry in table["tensors"].items():
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        tensor = _view(tensors, entry)
        if leaf in owner._parameters:  # tied ones stay one
            tensor = parameters.setdefault(
                entry["at"], torch.nn.Parameter(tensor, requires_grad=False)
            )
        setattr(owner, leaf, tensor)
    return TorchEngine(model.eval(), ModelIdentity.from_wire(identity), layout)


def _skeleton(config: dict[str, Any], dtype: torch.dtype) -> Any:
    """The model without memory for its weights, and without time spent on drawing them."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.for_model(**config), dtype=dtype, attn_implementation=NAME
        )


def _named(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor that a forward pass may read, tied ones under each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _view(data: npt.NDArray[np.uint8], entry: dict[str, Any]) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, entry["dtype"])
    length_bytes = int(np.prod(entry["shape"], dtype=np.int64)) * dtype.itemsize
    with warnings.catch_warnings():
        # torch warns of memory that must not be written: that is the point here.
        warnings.simplefilter("ignore", UserWarning)
        flat = torch.from_numpy(data[entry["at"] : entry["at"] + length_bytes])
    return flat.view(dtype).view(entry["shape"])


def _aligned(end: int) -> int:
    return -(-end // _VECTOR_BYTES) * _VECTOR_BYTES
