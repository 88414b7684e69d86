"""Cells of llama.cpp's sequence as bytes: how it saves and restores one."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_protocol.errors import InternalError

SEQUENCE = 0
SCRATCH = 1
SEQUENCES = 2

State = npt.NDArray[np.uint8]


def read_state(llama: Any, context: Any, start: int, end: int) -> State:
    """The cells of the sequence noted at positions from `start` below `end`; -1: no bound.

    A whole sequence is read at once, so the cells are made one of their own
    for the time being; they are not copied.
    """
    memory = llama.llama_get_memory(context)
    llama.llama_memory_seq_cp(memory, SEQUENCE, SCRATCH, start, end)
    state = np.empty(llama.llama_state_seq_get_size(context, SCRATCH), np.uint8)
    written = llama.llama_state_seq_get_data(context, _pointer(state), state.size, SCRATCH)
    llama.llama_memory_seq_rm(memory, SCRATCH, -1, -1)
    if written != state.size:
        raise InternalError(f"llama.cpp wrote {written} of the {state.size} bytes of its cells")
    return state


def write_state(llama: Any, context: Any, state: State, sequence: int) -> bool:
    """Make `state` the cells of `sequence`; False, and it is empty, if llama.cpp refuses."""
    read = llama.llama_state_seq_set_data(context, _pointer(state), state.size, sequence)
    if read == state.size:
        return True
    llama.llama_memory_seq_rm(llama.llama_get_memory(context), sequence, -1, -1)
    return False


def _pointer(state: State) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
