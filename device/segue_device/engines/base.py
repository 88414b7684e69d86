"""What every device engine is, who calls it and what may change.

One thread owns an engine (see :mod:`segue_device.engines.runner`); only
``cancel`` objects are touched from elsewhere. Calls release the GIL while the
model runs. A cancelled ``append`` raises :class:`segue_protocol.errors.Cancelled`
within one chunk; the cells it had finished stay valid and are told by
``cells``. So do they when the device has no memory for more, an InternalError
with reason ``OUT_OF_MEMORY``. After ``close`` every call but ``close`` raises InvalidRequest with
reason ``ENGINE_CLOSED``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from segue_protocol.errors import Cancelled
from segue_protocol.identity import ModelIdentity

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Cancel:
    """A thread-safe flag with listeners, so that an engine can stop native code."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._listeners: list[Callable[[], None]] = []

    def set(self) -> None:
        """Ask for the end of the running and of every later call. Idempotent."""
        with self._lock:
            if self._set:
                return
            self._set = True
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def is_set(self) -> bool:
        return self._set

    def raise_if_set(self) -> None:
        """Raise Cancelled when `set` has been called."""
        if self.is_set():
            raise Cancelled("the engine's work was cancelled by its caller")

    def add_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` once on `set`, at once if that has happened already."""
        with self._lock:
            if not self._set:
                self._listeners.append(listener)
                return
        listener()

    def remove_listener(self, listener: Callable[[], None]) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Add `listener` for the length of a block.

        A `set` in another thread may still call it just after the block.
        """
        self.add_listener(listener)
        try:
            yield
        finally:
            self.remove_listener(listener)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do.

    ``positions``: ``exact`` accepts any ascending positions, ``compact`` only
    consecutive ones from 0. A refined
    prompt has fewer cells than positions: ``max_context_tokens`` bounds the
    cells, ``max_positions`` what a position must lie below.
    """

    positions: Literal["exact", "compact"]
    cancel_in_prefill: bool
    rewind: bool
    max_context_tokens: int
    chunk_tokens: int
    max_positions: int = 2**31 - 1


class DeviceEngine(Protocol):
    """A model with its KV cache on the device."""

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def cells(self) -> Sequence[tuple[int, int]]:
        """(position, token_id) of every cell in the KV cache, oldest first."""
        ...

    def append(self, token_ids: Sequence[int], positions: Sequence[int], *, cancel: Cancel) -> None:
        """Prefill or absorb tokens in chunks; one model call a chunk.

        Positions ascend and lie above every position in the cache. Raises
        ContextTooLong when the cells do not fit, InvalidRequest on bad ids or
        positions, Unsupported on a gap in them that the engine cannot place;
        all three before any work. Cancelled when `cancel` is set.
        """
        ...

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits [vocab] after the last append, the caller's own copy.

        InvalidRequest while there are none: before the first append, after a
        rewind, after an append that did not end well.
        """
        ...

    def rewind(self, cells: int) -> bool:
        """Keep the first `cells` cells; False (and no change) if the engine cannot.

        InvalidRequest when there are fewer cells than that.
        """
        ...

    @property
    def cells_format(self) -> str:
        """Names the form of exported cells; another engine of this name can read them."""
        ...

    def export_cells(self, cells: int, file: BinaryIO) -> None:
        """Write the first `cells` cells to `file`, which says whose they are.

        `file` is buffered and binary, a :mod:`segue_device.engines.saved_cells`
        from here to its end. InvalidRequest unless there are so many cells, or
        when the model's weights have no digest.
        """
        ...

    def import_cells(self, file: BinaryIO) -> None:
        """Fill the empty cache with exported cells; there are no logits afterwards.

        The next append goes on as it would have behind the cells that were
        exported. Raises, with the cache empty as it was: InvalidRequest when the
        cache holds cells (``CACHE_NOT_EMPTY``) or the file is damaged
        (``CELLS_DAMAGED``), Unsupported for another version of its format,
        IdentityMismatch naming what differs for cells of other weights,
        numerics or another kind of engine, ContextTooLong when they do not fit.
        """
        ...

    def close(self) -> None:
        """Free everything. Idempotent."""
        ...
