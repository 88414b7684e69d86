"""The reference model as a device engine: exact, instant, for the machinery's proof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_device.engines.base import Cancel, Capabilities
from segue_device.engines.cell_engine import CellEngine
from segue_device.engines.saved_cells import SavedCells
from segue_protocol.reference import (
    DEFAULT_VOCAB_SIZE,
    logits_from_state,
    reference_identity,
    state_of,
)


class ReferenceDeviceEngine(CellEngine):
    """A :class:`DeviceEngine` over :mod:`segue_protocol.reference`.

    Its logits are the same function of (ids, positions) as the cloud's
    reference engine, bit for bit. ``append_calls`` counts the calls of
    `append`, refused and cancelled ones included.
    """

    def __init__(
        self,
        *,
        vocab_size: int = DEFAULT_VOCAB_SIZE,
        max_context_tokens: int = 4096,
        chunk_tokens: int = 256,
    ) -> None:
        super().__init__(
            reference_identity(vocab_size),
            Capabilities(
                positions="exact",
                cancel_in_prefill=True,
                rewind=True,
                max_context_tokens=max_context_tokens,
                chunk_tokens=chunk_tokens,
            ),
            cells_format="reference",
        )
        self._state = 0
        self.append_calls = 0

    def append(self, token_ids: Sequence[int], positions: Sequence[int], *, cancel: Cancel) -> None:
        self.append_calls += 1
        super().append(token_ids, positions, cancel=cancel)

    def _compute(self, token_ids: Sequence[int], positions: Sequence[int], cancel: Cancel) -> None:
        step = self._capabilities.chunk_tokens
        for start in range(0, len(token_ids), step):
            cancel.raise_if_set()
            ids, places = token_ids[start : start + step], positions[start : start + step]
            self._state = state_of(ids, places, self._state)
            self._cells.extend(zip(places, ids, strict=True))

    def _last_logits(self) -> npt.NDArray[np.float32]:
        return logits_from_state(self._state, self._identity.vocab_size)

    def _forget(self, cells: int) -> None:
        self._state = _state_of_cells(self._cells[:cells])

    def _saved_tensors(self, cells: int) -> dict[str, npt.NDArray[Any]]:
        return {}

    def _load(self, saved: SavedCells) -> None:
        saved.read_into({})
        self._state = _state_of_cells(saved.cells)

    def _free(self) -> None:
        pass


def _state_of_cells(cells: Sequence[tuple[int, int]]) -> int:
    return state_of([token for _, token in cells], [position for position, _ in cells])
