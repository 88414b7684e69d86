"""An emulation of a slower device, so that one machine can play many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO

from segue_device.engines.base import Cancel, Capabilities, DeviceEngine
from segue_device.engines.checks import check_append, no_logits
from segue_protocol.identity import ModelIdentity
from segue_protocol.timeline import DeviceProfile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def sleep_unless_cancelled(seconds: float, cancel: Cancel) -> None:
    """Sleep for `seconds`, or until `cancel` is set if that comes first."""
    woken = threading.Event()
    with cancel.listening(woken.set):
        woken.wait(seconds)


class ThrottledEngine:
    """Wraps an engine and makes every append last as long as `profile` says.

    This emulates time only, for demos and benchmarks: tokens are those of the
    wrapped engine, and figures made with it are figures of an emulated device.
    An append of one token takes ``decode_s``; one of n tokens behind m cells
    takes P(m + n) - P(m), with P the profile's prefill time, spread over its
    chunks. Real computing counts towards that time, so a device faster than
    this machine cannot be emulated. ``handover_s`` is no engine work and is not
    added.

    `sleep(seconds, cancel)` and `clock()` (seconds) are injected by tests. The
    wrapped engine belongs to this one from here on. A chunk whose emulated time
    was cut short by a cancel stays in the cache.
    """

    def __init__(
        self,
        engine: DeviceEngine,
        profile: DeviceProfile,
        *,
        sleep: Callable[[float, Cancel], None] = sleep_unless_cancelled,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        profile.validate()
        self._engine = engine
        self._profile = profile
        self._sleep = sleep
        self._clock = clock
        # How much later than asked the last sleep ended. The next append begins
        # that much earlier, else the lateness of every sleep would add up.
        self._overslept_s = 0.0
        self._append_ended_well = True

    def slow_to(self, profile: DeviceProfile) -> None:
        """Be another device from the next append on. Raises InvalidRequest on a bad profile."""
        profile.validate()
        self._profile = profile

    @property
    def identity(self) -> ModelIdentity:
        return self._engine.identity

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    @property
    def cells(self) -> Sequence[tuple[int, int]]:
        return self._engine.cells

    def append(self, token_ids: Sequence[int], positions: Sequence[int], *, cancel: Cancel) -> None:
        cells = self._engine.cells
        check_append(
            token_ids,
            positions,
            cells=cells,
            vocab_size=self.identity.vocab_size,
            capabilities=self.capabilities,
        )
        self._append_ended_well = False
        due_s = self._clock() - self._overslept_s
        step = self.capabilities.chunk_tokens
        for start in range(0, len(token_ids), step):
            ids, places = token_ids[start : start + step], positions[start : start + step]
            self._engine.append(ids, places, cancel=cancel)
            if len(token_ids) == 1:
                due_s += self._profile.decode_s
            else:
                done = len(cells) + start
                due_s += self._profile.prefill_left_s(done + len(ids), done)
            self._sleep_until(due_s, cancel)
            cancel.raise_if_set()
        self._append_ended_well = True

    def logits(self) -> npt.NDArray[np.float32]:
        logits = self._engine.logits()
        if not self._append_ended_well:
            raise no_logits()
        return logits

    def rewind(self, cells: int) -> bool:
        return self._engine.rewind(cells)

    @property
    def cells_format(self) -> str:
        return self._engine.cells_format

    def export_cells(self, cells: int, file: BinaryIO) -> None:
        self._engine.export_cells(cells, file)

    def import_cells(self, file: BinaryIO) -> None:
        self._engine.import_cells(file)

    def close(self) -> None:
        self._engine.close()

    def _sleep_until(self, due_s: float, cancel: Cancel) -> None:
        left_s = due_s - self._clock()
        if left_s <= 0:
            # Computing took longer than the emulated device. This is no debt:
            # later appends do not run faster to make up for it.
            self._overslept_s = 0.0
            return
        self._sleep(left_s, cancel)
        self._overslept_s = max(0.0, self._clock() - due_s)
