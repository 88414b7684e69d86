"""Cells of a KV cache as a file that says what it is.

::

    8 bytes   magic
    u32, u32  format version, length of the header (little-endian)
    header    JSON: model, weights, numerics, engine, positions and ids, tensors
    tensors   raw, in the header's order, C order
    32 bytes  SHA-256 over all of the above

A file is read twice: once for the digest, before anything is believed or
changed, and once into the cache, with no copy of the whole in between. The
digest tells damage, not malice: such a file is to be trusted as far as the
model's own. The prompt can be read from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from segue_protocol.errors import IdentityMismatch, InvalidRequest, Unsupported
from segue_protocol.identity import ModelIdentity

if TYPE_CHECKING:  # the store looks at files of engines that are not loaded
    import numpy.typing as npt

FORMAT = 1

_MAGIC = b"SEGUEKV\n"
_PREAMBLE = struct.Struct("<8sII")
_DIGEST_BYTES = hashlib.sha256().digest_size
_CHUNK_BYTES = 1 << 20


def write_cells(
    file: BinaryIO,
    *,
    identity: ModelIdentity,
    cells_format: str,
    cells: Sequence[tuple[int, int]],
    tensors: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Write `cells` and what the cache holds for them; `file` is buffered."""
    header = json.dumps(
        {
            "model": identity.model,
            **_factors(identity, cells_format),
            "positions": [position for position, _ in cells],
            "token_ids": [token for _, token in cells],
            "tensors": _layout(tensors),
        }
    ).encode()
    digest = hashlib.sha256()

    def write(data: bytes | memoryview) -> None:
        digest.update(data)
        file.write(data)

    write(_PREAMBLE.pack(_MAGIC, FORMAT, len(header)))
    write(header)
    for tensor in tensors.values():
        for block in _blocks(tensor):
            write(block)
    file.write(digest.digest())


class SavedCells:
    """A file of `write_cells` that was found whole."""

    def __init__(self, file: BinaryIO, header: Mapping[str, Any]) -> None:
        self._file = file
        self._header = header
        self.cells: Sequence[tuple[int, int]] = tuple(
            zip(header["positions"], header["token_ids"], strict=True)
        )

    @classmethod
    def open(cls, file: BinaryIO) -> SavedCells:
        """Check `file`, which can seek, from its beginning to its end.

        InvalidRequest with reason ``CELLS_DAMAGED`` unless every byte is what was
        written, Unsupported for another version of the format.
        """
        whole = file.seek(0, os.SEEK_END)
        file.seek(0)
        preamble = file.read(_PREAMBLE.size)
        if len(preamble) < _PREAMBLE.size or not preamble.startswith(_MAGIC):
            raise _damaged("it does not begin as one")
        _, version, header_bytes = _PREAMBLE.unpack(preamble)
        if version != FORMAT:
            raise Unsupported(
                f"the saved cells have format {version}, this version of segue_device reads "
                f"{FORMAT}; delete the file and save the cells again",
                reason="CELLS_FORMAT",
            )
        covered = whole - _DIGEST_BYTES
        if covered < _PREAMBLE.size + header_bytes:
            raise _damaged(f"it ends after {whole} bytes, within its header")
        digest = hashlib.sha256(preamble)
        while file.tell() < covered:
            digest.update(file.read(min(_CHUNK_BYTES, covered - file.tell())))
        if file.read() != digest.digest():
            raise _damaged("its content and its SHA-256 differ")
        file.seek(_PREAMBLE.size)
        return cls(file, json.loads(file.read(header_bytes)))

    def require(self, identity: ModelIdentity, cells_format: str) -> None:
        """IdentityMismatch, naming every factor, unless these cells are of that engine."""
        ours = _factors(identity, cells_format)
        odd = [name for name, value in ours.items() if self._header[name] != value]
        if odd:
            named = "; ".join(f"{name} {self._header[name]!r}, not {ours[name]!r}" for name in odd)
            raise _mismatch(f"of {self._header['model']!r} have {named}")

    def tensor_bytes(self, name: str) -> int:
        """Size of a tensor; 0 when there is none of that name."""
        for found, dtype, shape in self._header["tensors"]:
            if found == name:
                import numpy as np

                return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
        return 0

    def read_into(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill `tensors`; IdentityMismatch, and nothing read, if theirs is another layout."""
        ours, theirs = _layout(tensors), self._header["tensors"]
        if ours != theirs:
            here, there = (
                (f"{len(ours)} tensors", f"{len(theirs)}")
                if len(ours) != len(theirs)
                else next(pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1])
            )
            raise _mismatch(f"hold {there} where this engine's cache holds {here}")
        for tensor in tensors.values():
            for block in _blocks(tensor):
                read = self._file.readinto(block)  # type: ignore[attr-defined]
                if read != len(block):
                    raise _damaged("it became shorter while it was read")


def _factors(identity: ModelIdentity, cells_format: str) -> dict[str, str | int]:
    """What two engines must share, so that the one's cells are the other's."""
    return {
        "weights_digest": identity.weights_digest.hex(),
        "vocab_size": identity.vocab_size,
        "numerics": identity.numerics,
        "cells_format": cells_format,
    }


def _layout(tensors: Mapping[str, npt.NDArray[Any]]) -> list[list[Any]]:
    return [[name, each.dtype.str, list(each.shape)] for name, each in tensors.items()]


def _blocks(tensor: npt.NDArray[Any]) -> Iterator[memoryview]:
    """The bytes of `tensor`, which may be a view, in C order and without a copy."""
    if tensor.flags.c_contiguous:
        yield tensor.data.cast("B")
    else:
        for part in tensor:
            yield from _blocks(part)


def _damaged(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"this is no whole file of saved cells: {why}; delete it and save the cells again",
        reason="CELLS_DAMAGED",
    )


def _mismatch(how: str) -> IdentityMismatch:
    return IdentityMismatch(
        f"the saved cells {how}; save them again with this engine", reason="CELLS_MISMATCH"
    )
