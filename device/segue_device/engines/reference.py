"""The reference model as a device engine: exact, instant, for the machinery's proof."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segue_device.engines.base import Cancel, Capabilities
from segue_device.engines.checks import check_append, check_rewind, engine_closed, no_logits
from segue_protocol.identity import ModelIdentity
from segue_protocol.reference import (
    DEFAULT_VOCAB_SIZE,
    logits_from_state,
    reference_identity,
    state_of,
)


class ReferenceDeviceEngine:
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
        self._identity = reference_identity(vocab_size)
        self._capabilities = Capabilities(
            positions="exact",
            cancel_in_prefill=True,
            rewind=True,
            max_context_tokens=max_context_tokens,
            chunk_tokens=chunk_tokens,
        )
        self._cells: list[tuple[int, int]] = []
        self._state = 0
        self._has_logits = False
        self._closed = False
        self.append_calls = 0

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def cells(self) -> Sequence[tuple[int, int]]:
        return tuple(self._cells)

    def append(self, token_ids: Sequence[int], positions: Sequence[int], *, cancel: Cancel) -> None:
        self._require_open()
        self.append_calls += 1
        check_append(
            token_ids,
            positions,
            cells=self._cells,
            vocab_size=self._identity.vocab_size,
            capabilities=self._capabilities,
        )
        self._has_logits = False
        step = self._capabilities.chunk_tokens
        for start in range(0, len(token_ids), step):
            cancel.raise_if_set()
            ids, places = token_ids[start : start + step], positions[start : start + step]
            self._state = state_of(ids, places, self._state)
            self._cells.extend(zip(places, ids, strict=True))
        self._has_logits = True

    def logits(self) -> npt.NDArray[np.float32]:
        self._require_open()
        if not self._has_logits:
            raise no_logits()
        return logits_from_state(self._state, self._identity.vocab_size)

    def rewind(self, cells: int) -> bool:
        self._require_open()
        check_rewind(cells, len(self._cells))
        del self._cells[cells:]
        self._state = state_of(
            [token for _, token in self._cells], [place for place, _ in self._cells]
        )
        self._has_logits = False
        return True

    def close(self) -> None:
        self._closed = True
        self._cells.clear()

    def _require_open(self) -> None:
        if self._closed:
            raise engine_closed()
