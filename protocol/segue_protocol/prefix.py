"""The hash by which device and cloud notice that their logs differ."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from segue_protocol.errors import InvalidRequest


def prefix_hash(prompt_ids: Sequence[int], output_ids: Sequence[int]) -> bytes:
    """SHA-256 over the prompt's ids, their number and the output's ids, each as u32-LE.

    `prompt_ids` are those sent in Start, never the kept subset; `output_ids`
    is the log up to the index in question. The number in between keeps the
    two apart. Raises InvalidRequest when an id is no u32.
    """
    ids = (*prompt_ids, len(prompt_ids), *output_ids)
    try:
        return hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).digest()
    except struct.error as error:
        raise InvalidRequest(
            f"a token id is no whole number in 0..2^32-1 ({error}); check the tokenizer"
        ) from error
