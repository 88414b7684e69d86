"""The emulated accelerator: the reference's tokens (level 1), a profile's times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segue_cloud.engine.base import Chunk
from segue_cloud.engine.emulated import EmulatedEngine, load_emulated
from segue_cloud.engine.reference import ReferenceEngine
from segue_cloud.kv.layout import Cells
from segue_cloud.profiles.base import CloudProfile, DecodeCost, PrefillCost
from segue_cloud.profiles.measure import measure_profile
from segue_cloud.worker.compute import InlineCompute
from segue_protocol.errors import InvalidRequest
from segue_protocol.model_files import read_stop_token_ids
from segue_protocol.reference import STOP_ID, logits_from_state, reference_logits, state_of
from tests.virtual_clock import VirtualLoop

TINY = Path(__file__).resolve().parents[2] / "demos" / "model" / "tiny"
PROFILE = CloudProfile(
    name="round numbers",
    source="made up",
    prefill=PrefillCost(1.0, 0.5, 0.25),
    decode=(DecodeCost(4.0, 0.125, 2.0),),
)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def _engine(clock: Clock, **options: float) -> EmulatedEngine:
    return EmulatedEngine(PROFILE, sleep=clock.sleep, clock=clock.now, **options)


def _cells(engine: EmulatedEngine, tokens: int) -> Cells:
    return np.zeros(engine.layout.shape(tokens), engine.layout.storage_dtype)


def test_the_tokens_are_those_of_the_reference() -> None:
    ids = list(range(60, 84))
    engine = _engine(Clock())
    cells = _cells(engine, 64)
    engine.forward(cells, [Chunk(ids[:10], range(10), slice(0, 10))])
    whole = engine.forward(
        cells,
        [
            Chunk(ids[10:], range(10, 24), slice(0, 24)),
            Chunk(ids[:7], range(7), np.arange(40, 33, -1)),
        ],
    )
    assert (whole[0] == reference_logits(ids, range(24))).all()
    assert (whole[1] == reference_logits(ids[:7], range(7))).all()
    assert engine.layout == ReferenceEngine().layout
    assert engine.identity.model == "segue-reference (emulated accelerator)"


def test_a_step_takes_the_time_of_the_profile() -> None:
    clock = Clock()
    engine = _engine(clock)
    cells = _cells(engine, 64)
    engine.forward(cells, [Chunk([1] * 4, range(4), slice(0, 4))])
    assert clock.now_s == 1.0 + 0.5 * 4 + 0.25 * 16
    clock.now_s = 0.0
    engine.forward(cells, [Chunk([1] * 2, [4, 5], slice(0, 6))])
    assert clock.now_s == 1.0 + 0.5 * 2 + 0.25 * (36 - 16)
    clock.now_s = 0.0
    engine.forward(cells, [Chunk([1], [6], slice(0, 7)), Chunk([1], [8], slice(10, 19))])
    assert clock.now_s == 4.0 + 0.125 * (7 + 9) + 2.0 * 2


def test_a_faster_one_takes_less_and_what_the_step_took_is_taken_off() -> None:
    clock = Clock()
    _engine(clock, speed=2.0).forward(
        _cells(_engine(clock), 4), [Chunk([1] * 4, range(4), slice(0, 4))]
    )
    assert clock.now_s == 3.5
    slept: list[float] = []
    ticking = iter([0.0, 2.0])
    engine = EmulatedEngine(PROFILE, sleep=slept.append, clock=lambda: next(ticking))
    engine.forward(_cells(engine, 4), [Chunk([1] * 4, range(4), slice(0, 4))])
    assert slept == [5.0]
    with pytest.raises(InvalidRequest, match="speed is 0"):
        _engine(clock, speed=0.0)


def test_a_virtual_clock_moves_instead() -> None:
    loop, compute = VirtualLoop(), InlineCompute()
    engine = EmulatedEngine(PROFILE, sleep=compute.owe, clock=loop.time)
    cells = _cells(engine, 4)
    for _ in range(2):
        loop.run_until_complete(
            compute.run(engine.forward, cells, [Chunk([1] * 4, range(4), slice(0, 4))])
        )
    loop.close()
    assert loop.time() == 14.0


def test_measuring_finds_the_profile_that_is_emulated() -> None:
    clock = Clock()
    found = measure_profile(_engine(clock), source="emulated", clock=clock.now)
    assert found.prefill.base_s == pytest.approx(1.0)
    assert found.prefill.per_token_s == pytest.approx(0.5)
    assert found.prefill.per_token2_s == pytest.approx(0.25)
    assert found.decode_s([100, 7]) == pytest.approx(PROFILE.decode_s([100, 7]))
    assert found.prefill_fit is not None
    assert found.prefill_fit.relative_max < 1e-9
    found.validate()


def test_another_vocabulary_ends_with_its_own_stop_token() -> None:
    engine = load_emulated(str(TINY), PROFILE, speed=1e9, max_context_tokens=64)
    stops = read_stop_token_ids(TINY)
    specials = {*engine.identity.special_token_ids} - {stops[0]}
    assert engine.identity.numerics == "emulated"
    cells = _cells(engine, 64)
    chosen = set()
    for first in range(3, 303):
        row = engine.forward(cells, [Chunk([first], [0], slice(0, 1))])[0]
        reference = logits_from_state(state_of([first], [0]))
        assert (int(row.argmax()) == stops[0]) == (int(reference.argmax()) == STOP_ID)
        chosen.add(int(row.argmax()))
    assert stops[0] in chosen
    assert not chosen & specials


def test_an_emulated_worker_does_without_torch() -> None:
    code = (
        "import sys, segue_cloud.worker.process as process\n"
        "from segue_cloud.config import WorkerConfig\n"
        "process.load_engine_of(WorkerConfig(engine='emulated', profile='a100-80g-opt-13b-tp1'))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"
