"""The KV cache of an ONNX graph: one buffer an input, written in place.

A GroupQueryAttention node whose past and present are the same buffer appends
behind the cells it has and copies nothing; forgetting cells is counting fewer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FIRST_CELLS = 512


class OnnxCache:
    """Buffers [1, kv heads, capacity, head dim] for every layer's keys and values.

    They begin small and double when they are full, up to `max_cells`: a long
    context costs memory only once it is used. ``binding`` has them bound as
    inputs and outputs; it is another one after `reserve` has grown them.
    """

    def __init__(self, onnxruntime: Any, session: Any, *, head_dim: int, max_cells: int) -> None:
        self._onnxruntime = onnxruntime
        self._session = session
        self._max_cells = max_cells
        # OrtValues made from numpy arrays borrow the memory. The arrays must live as
        # long as a binding that knows them: dropping one early corrupts the heap.
        self._arrays: dict[str, Any] = {}
        for given in session.get_inputs():
            if given.name.startswith("past_key_values."):
                dtype = np.float16 if given.type == "tensor(float16)" else np.float32
                shape = (1, given.shape[1], min(FIRST_CELLS, max_cells), head_dim)
                self._arrays[given.name] = np.zeros(shape, dtype)
        self.binding = self._bind(self._arrays)

    @property
    def capacity(self) -> int:
        """Cells that fit without growing."""
        return int(next(iter(self._arrays.values())).shape[2])

    def reserve(self, cells: int, *, keep: int) -> None:
        """Make room for `cells` cells in all, the first `keep` staying what they are."""
        assert keep <= cells <= self._max_cells
        if cells <= self.capacity:
            return
        capacity = min(self._max_cells, max(cells, 2 * self.capacity))
        grown = {}
        for name, old in self._arrays.items():
            grown[name] = np.zeros((*old.shape[:2], capacity, old.shape[3]), old.dtype)
            grown[name][:, :, :keep] = old[:, :, :keep]
        # The new binding first: the old one must not outlive its arrays.
        self.binding = self._bind(grown)
        self._arrays = grown

    def views(self, cells: int) -> dict[str, Any]:
        """The first `cells` cells of every buffer, by input, where they lie."""
        return {name: array[:, :, :cells] for name, array in self._arrays.items()}

    def _bind(self, arrays: dict[str, Any]) -> Any:
        binding = self._session.io_binding()
        # First, so that logits are output 0 of the binding; the run allocates them.
        binding.bind_output("logits")
        for name, array in arrays.items():
            value = self._onnxruntime.OrtValue.ortvalue_from_numpy(array)
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        return binding
