"""Digest over KV cells: taken where they were made, compared where they arrived.

``sampled`` reads :data:`SAMPLES` rows of each of the layers' key and value
planes: on shared memory it guards against bookkeeping errors (a wrong offset, a
page never copied), not against flipped bits. ``full`` reads every byte.
"""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from segue_cloud.kv.layout import Cells, KvLayout
from segue_protocol.errors import InvalidRequest

DigestKind = Literal["off", "sampled", "full"]

SAMPLES = 16
DIGEST_BYTES = 16

# Weakest first.
KINDS: tuple[DigestKind, ...] = get_args(DigestKind)


def digest_cells(
    cells: Cells, rows: npt.NDArray[np.int64] | None, layout: KvLayout, kind: DigestKind
) -> bytes:
    """BLAKE2b over the tokens whose cell numbers are `rows`, in that order.

    ``cells`` is [layers, 2, n_cells, kv_heads, head_dim]; ``rows`` None means
    all of them. Equal tokens give equal digests wherever they lie. ``off``
    gives no bytes. Raises InvalidRequest for an unknown kind.
    """
    if kind == "off":
        return b""
    if kind not in KINDS:
        raise InvalidRequest(f"KV digest {kind!r} is unknown; use one of {', '.join(KINDS)}")
    tokens = cells.shape[2] if rows is None else len(rows)
    # Kind, layout and length are part of the content: digests of different
    # things never agree by accident.
    state = hashlib.blake2b(f"{kind} {tokens} {layout}".encode(), digest_size=DIGEST_BYTES)
    if kind == "full":
        for plane in (plane for layer in cells for plane in layer):
            state.update(np.ascontiguousarray(plane if rows is None else plane[rows]).data)
        return state.digest()
    picked = sample_rows(tokens, 2 * layout.num_layers)
    where = picked if rows is None else rows[picked]
    planes = np.arange(2 * layout.num_layers)[:, None]
    state.update(np.ascontiguousarray(cells[planes // 2, planes % 2, where]).data)
    return state.digest()


def sample_rows(tokens: int, planes: int) -> npt.NDArray[np.int64]:
    """Sampled rows per plane, int64 [planes, SAMPLES], each < tokens.

    Even steps, shifted from plane to plane: all planes together touch up to
    SAMPLES x planes different tokens, so few pages go unseen.
    """
    steps = np.arange(planes)[:, None] + planes * np.arange(SAMPLES)[None, :]
    return (steps * tokens) // (planes * SAMPLES)
