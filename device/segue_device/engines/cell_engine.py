"""What every engine here does alike: its cells, what it refuses, how it ends.

An engine keeps a list of its cells beside a cache of its own kind. This base
checks every call, keeps the list true and saves and loads it; a subclass
computes, forgets, frees and names its tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from segue_device.engines.base import Cancel, Capabilities
from segue_device.engines.checks import (
    check_append,
    check_empty,
    check_export,
    check_rewind,
    engine_closed,
    no_logits,
    out_of_memory,
)
from segue_device.engines.saved_cells import SavedCells, write_cells
from segue_protocol.identity import ModelIdentity


class CellEngine(ABC):
    """A :class:`~segue_device.engines.base.DeviceEngine` but for the model itself.

    Subclasses extend ``_cells`` in `_compute`, chunk by chunk, and nowhere else.
    """

    def __init__(
        self, identity: ModelIdentity, capabilities: Capabilities, *, cells_format: str
    ) -> None:
        self._identity = identity
        self._capabilities = capabilities
        self._cells_format = cells_format
        self._cells: list[tuple[int, int]] = []
        self._has_logits = False
        self._closed = False

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def cells_format(self) -> str:
        return self._cells_format

    @property
    def cells(self) -> Sequence[tuple[int, int]]:
        return tuple(self._cells)

    def append(self, token_ids: Sequence[int], positions: Sequence[int], *, cancel: Cancel) -> None:
        self._require_open()
        check_append(
            token_ids,
            positions,
            cells=self._cells,
            vocab_size=self._identity.vocab_size,
            capabilities=self._capabilities,
        )
        self._has_logits = False
        try:
            self._compute(token_ids, positions, cancel)
        except MemoryError as error:
            raise out_of_memory(f"{len(self._cells) + len(token_ids)} cells") from error
        self._has_logits = True

    def logits(self) -> npt.NDArray[np.float32]:
        self._require_open()
        if not self._has_logits:
            raise no_logits()
        return self._last_logits()

    def rewind(self, cells: int) -> bool:
        self._require_open()
        check_rewind(cells, len(self._cells))
        self._forget(cells)
        del self._cells[cells:]
        self._has_logits = False
        return True

    def export_cells(self, cells: int, file: BinaryIO) -> None:
        self._require_open()
        check_export(cells, len(self._cells), self._identity)
        write_cells(
            file,
            identity=self._identity,
            cells_format=self._cells_format,
            cells=self._cells[:cells],
            tensors=self._saved_tensors(cells),
        )

    def import_cells(self, file: BinaryIO) -> None:
        self._require_open()
        check_empty(len(self._cells))
        saved = SavedCells.open(file)
        saved.require(self._identity, self._cells_format)
        check_append(
            [token for _, token in saved.cells],
            [position for position, _ in saved.cells],
            cells=(),
            vocab_size=self._identity.vocab_size,
            capabilities=self._capabilities,
        )
        try:
            self._load(saved)
        except MemoryError as error:
            raise out_of_memory(f"{len(saved.cells)} cells") from error
        self._cells.extend(saved.cells)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._cells.clear()
        self._free()

    def _require_open(self) -> None:
        if self._closed:
            raise engine_closed()

    @abstractmethod
    def _compute(self, token_ids: Sequence[int], positions: Sequence[int], cancel: Cancel) -> None:
        """Append in chunks to the cache and to ``_cells``; the arguments are checked."""

    @abstractmethod
    def _last_logits(self) -> npt.NDArray[np.float32]:
        """A copy of the logits [vocab] behind the last token of the last `_compute`."""

    @abstractmethod
    def _forget(self, cells: int) -> None:
        """Drop the cache behind the first `cells` of ``_cells``, which still names them all."""

    @abstractmethod
    def _saved_tensors(self, cells: int) -> Mapping[str, npt.NDArray[Any]]:
        """What the cache holds for the first `cells` cells, by name; views where they can be."""

    @abstractmethod
    def _load(self, saved: SavedCells) -> None:
        """Fill the empty cache; it stays empty when this raises."""

    @abstractmethod
    def _free(self) -> None:
        """Free everything; called once."""
