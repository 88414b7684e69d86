"""The emulated device keeps its time, on a clock of the test."""

from __future__ import annotations

import threading

import pytest

from segue_device.engines import (
    Cancel,
    ReferenceDeviceEngine,
    ThrottledEngine,
)
from segue_protocol.errors import (
    Cancelled,
    InvalidRequest,
)
from segue_protocol.timeline import DeviceProfile
from tests.contract.engine_cases import (
    COMPACT,
    IDS,
    PROFILE,
)


class Emulated:
    """A throttled reference engine on a clock that only computing and sleeping move."""

    def __init__(self, *, compute_s: float = 0.0, oversleep_s: float = 0.0) -> None:
        self.now_s, self.compute_s, self.oversleep_s = 0.0, compute_s, oversleep_s
        self.sleeps: list[float] = []
        self.cancel_asleep = False
        inner = ReferenceDeviceEngine(chunk_tokens=4)
        compute = inner.append

        def computing(*args: object, **kwargs: object) -> None:
            self.now_s += self.compute_s
            compute(*args, **kwargs)

        inner.append = computing
        self.engine = ThrottledEngine(inner, PROFILE, sleep=self.sleep, clock=lambda: self.now_s)

    def sleep(self, seconds: float, cancel: Cancel) -> None:
        self.sleeps.append(seconds)
        if self.cancel_asleep:
            cancel.set()
            return
        self.now_s += seconds + self.oversleep_s


def test_throttled_prefill_takes_the_profiles_time_chunk_by_chunk() -> None:
    emulated = Emulated(compute_s=0.5)
    emulated.engine.append(IDS[:10], COMPACT[:10], cancel=Cancel())
    assert emulated.now_s == PROFILE.prefill_s(10)
    assert emulated.sleeps == [6.5, 13.5, 9.5]  # P = 7, 21, 31; less computing
    emulated.engine.append(IDS[10:12], COMPACT[10:12], cancel=Cancel())
    assert emulated.now_s == PROFILE.prefill_s(12)
    emulated.engine.append(IDS[12:13], COMPACT[12:13], cancel=Cancel())
    assert emulated.now_s == PROFILE.prefill_s(12) + PROFILE.decode_s


def test_throttled_lateness_does_not_add_up() -> None:
    emulated = Emulated(oversleep_s=0.25)
    for index in range(20):
        emulated.engine.append(IDS[index : index + 1], [index], cancel=Cancel())
    assert emulated.now_s == 20 * PROFILE.decode_s + 0.25


def test_throttled_computing_that_is_too_slow_is_no_debt() -> None:
    emulated = Emulated(compute_s=10.0)
    emulated.engine.append(IDS[:1], [0], cancel=Cancel())
    assert (emulated.sleeps, emulated.now_s) == ([], 10.0)
    emulated.compute_s = 0.0
    emulated.engine.append(IDS[1:2], [1], cancel=Cancel())
    assert emulated.now_s == 10.0 + PROFILE.decode_s


def test_throttled_cancel_ends_the_sleep() -> None:
    emulated = Emulated()
    emulated.cancel_asleep = True
    with pytest.raises(Cancelled):
        emulated.engine.append(IDS[:10], COMPACT[:10], cancel=Cancel())
    assert len(emulated.engine.cells) == 4
    with pytest.raises(InvalidRequest, match="no logits"):
        emulated.engine.logits()


def test_throttled_default_sleep_wakes_on_cancel() -> None:
    year = DeviceProfile(3e7, 0.0, 0.0, 3e7, 0.0)
    engine, cancel, ended = ThrottledEngine(ReferenceDeviceEngine(), year), Cancel(), []

    def run() -> None:
        try:
            engine.append([5], [0], cancel=cancel)
        except Cancelled:
            ended.append("cancelled")

    thread = threading.Thread(target=run)
    thread.start()
    cancel.set()
    thread.join()
    assert ended == ["cancelled"]


def test_it_can_become_another_device() -> None:
    emulated = Emulated()
    emulated.engine.append(IDS[:4], COMPACT[:4], cancel=Cancel())
    began_s = emulated.now_s
    emulated.engine.slow_to(DeviceProfile(0.0, 10.0, 0.0, 1.0, 0.0))
    emulated.engine.append(IDS[4:8], COMPACT[4:8], cancel=Cancel())
    assert emulated.now_s - began_s == 40.0
    with pytest.raises(InvalidRequest, match="decode_s"):
        emulated.engine.slow_to(DeviceProfile(0.0, 1.0, 0.0, 0.0, 0.0))
