"""Exact gaps between positions in llama.cpp, which takes none in a sequence.

llama.cpp demands that a batch begin one position behind the last cell of its
sequence. What attention computes does not depend on it: a key carries its
position in its rotation, made when the cell was, and the position noted for
the cell only has to be lower than the query's. So before a gap the last cell
is noted at the position before the batch, with its key and value as they are,
and the batch goes to its true positions.

The way that keeps to the documented calls is to decode a range's first token
behind the last cell and to move it with ``llama_memory_seq_add``. It rotates
the key, but the token has by then attended from the wrong place: logits of a
small model were off by 1e-1, where this way is within 1e-4 of torch and closed
up positions are off by 5.9. The note is changed in the state of a sequence,
which is how llama.cpp saves and restores one.
"""

from __future__ import annotations

import struct
from typing import Any

from segue_device.engines.llama_state import SCRATCH, SEQUENCE, read_state, write_state
from segue_protocol.errors import InternalError

# A magic number, then sequence, streams, cells, and of the cell: position, sequences.
_HEADER = struct.Struct("=4xiIIiI")
_POSITION_OFFSET = 16


def move_last_cell(llama: Any, context: Any, position: int, to: int) -> None:
    """Note the last cell of the sequence, at `position`, at the position `to`.

    One cell of the cache must be free. InternalError, and no change, when this
    llama.cpp keeps a sequence's state in another form.
    """
    memory = llama.llama_get_memory(context)
    state = read_state(llama, context, position, position + 1)
    expected = (SCRATCH, 1, 1, position, 1)
    if state.size < _HEADER.size or _HEADER.unpack_from(state.data) != expected:
        raise _unknown_form()
    struct.pack_into("=i", state.data, _POSITION_OFFSET, to)
    if not write_state(llama, context, state, SCRATCH):
        raise _unknown_form()
    llama.llama_memory_seq_rm(memory, SEQUENCE, position, position + 1)
    llama.llama_memory_seq_cp(memory, SCRATCH, SEQUENCE, to, to + 1)
    llama.llama_memory_seq_rm(memory, SCRATCH, -1, -1)


def _unknown_form() -> InternalError:
    return InternalError(
        "this llama.cpp keeps the state of a sequence in a form that Segue does not know, so "
        "gapped positions cannot be placed; install llama-cpp-python 0.3.36",
        reason="LLAMA_CPP_STATE_FORM",
    )
