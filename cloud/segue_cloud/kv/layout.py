"""How the KV of one token looks; compared before any byte moves."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_protocol.errors import TransferError, Unsupported
from segue_protocol.wire import private

# A run of KV cells of any dtype, [num_layers, 2, n, num_kv_heads, head_dim].
Cells = npt.NDArray[Any]

# numpy has no bfloat16: its cells are stored as the same 16 bits in a uint16
# array, which an engine reinterprets (torch: ``.view(torch.bfloat16)``).
_STORAGE: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "float64": np.dtype(np.float64),
    "int64": np.dtype(np.int64),
}


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Shape of the key/value cells of one model.

    A run of n cells is an array [num_layers, 2, n, num_kv_heads, head_dim]
    (0: keys after rotary embedding, half-split; 1: values) of
    ``storage_dtype``. ``dtype`` says what the bits mean and is what two
    workers compare.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: str

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """numpy dtype of the cells; Unsupported for a dtype no engine uses."""
        try:
            return _STORAGE[self.dtype]
        except KeyError:
            raise Unsupported(
                f"KV dtype {self.dtype!r} is not supported; use one of {', '.join(_STORAGE)}",
                reason="KV_DTYPE",
            ) from None

    @property
    def bytes_per_token(self) -> int:
        return self.num_layers * 2 * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Bytes of the keys (or values) of one token in one layer."""
        return self.num_kv_heads * self.head_dim * self.storage_dtype.itemsize

    def shape(self, tokens: int) -> tuple[int, int, int, int, int]:
        return (self.num_layers, 2, tokens, self.num_kv_heads, self.head_dim)

    def numbers(self, cells: Cells) -> npt.NDArray[np.float32]:
        """The same cells as float32, whatever their bits mean."""
        if self.dtype == "bfloat16":
            return (cells.astype(np.uint32) << 16).view(np.float32)
        return cells.astype(np.float32, copy=False)

    def to_wire(self) -> private.KvLayout:
        return private.KvLayout(
            num_layers=self.num_layers,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            dtype=self.dtype,
        )

    @classmethod
    def from_wire(cls, message: private.KvLayout) -> KvLayout:
        return cls(message.num_layers, message.num_kv_heads, message.head_dim, message.dtype)

    def require_equal(self, other: KvLayout) -> None:
        """Raise TransferError naming the first factor in which `other` differs."""
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if ours != theirs:
                raise TransferError(
                    f"KV layouts differ in {field.name}: {ours!r} here, {theirs!r} at the sender; "
                    "run both workers with the same model, dtype and version",
                    reason="KV_LAYOUT",
                )
