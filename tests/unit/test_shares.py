"""The controller of compute shares on plants that behave as the paper says, and on others."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_cloud.cluster.shares import FULL, LEAST, Line, Shares, Targets, Window, fit, step

TARGETS = Targets(ttft_s=0.5, tpot_s=0.05)


@dataclass
class Plant:
    """TTFT = a1/(x - lambda) + b1, TPOT = a2/y + b2; where `shared`, x and y are weights."""

    a1: float
    b1: float
    a2: float
    b2: float
    load: float
    shared: bool = False

    def window(self, shares: Shares, noise: float = 1.0) -> Window:
        x, y = float(shares.prefill), float(shares.decode)
        if self.shared:
            x, y = 100 * x / (x + y), 100 * y / (x + y)
        ttft_s = self.a1 / max(x - self.load, 0.5) + self.b1
        tpot_s = self.a2 / y + self.b2
        return Window(shares, self.load, ttft_s * noise, tpot_s * noise)

    def run(self, shares: Shares, steps: int, targets: Targets = TARGETS) -> list[Window]:
        windows = [self.window(shares)]
        for _ in range(steps):
            windows.append(self.window(step(windows, targets)))
        return windows


def meets(window: Window, targets: Targets = TARGETS) -> bool:
    return window.ttft_s <= targets.ttft_s and window.tpot_s <= targets.tpot_s


def test_a_missed_ttft_raises_prefill_until_it_is_met() -> None:
    # At x = 20: 10/10 + 0.1 = 1.1 s; met from x = 35 on.
    windows = Plant(a1=10.0, b1=0.1, a2=2.0, b2=0.01, load=10.0).run(Shares(20, 80), 3)
    assert meets(windows[-1])
    assert windows[-1].shares == windows[-2].shares, "what meets the targets stays"
    assert (windows[-1].shares.prefill, windows[-1].shares.decode) == (40, 80)


def test_a_missed_tpot_raises_decode_until_it_is_met() -> None:
    windows = Plant(a1=1.0, b1=0.0, a2=2.0, b2=0.01, load=0.0).run(Shares(80, 20), 3)
    assert meets(windows[-1])
    assert (windows[-1].shares.prefill, windows[-1].shares.decode) == (80, 50)


def test_where_shares_are_weights_the_other_phase_gives_way() -> None:
    plant = Plant(a1=20.0, b1=0.0, a2=1.0, b2=0.01, load=20.0, shared=True)
    windows = plant.run(Shares(100, 100), 10)
    assert not meets(windows[0])
    assert meets(windows[-1])
    assert windows[-1].shares.prefill == FULL
    assert windows[-1].shares == windows[-2].shares


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s"), [(0.4, 0.04), (0.6, 0.06), (None, None), (None, 0.04)]
)
def test_nothing_changes_when_both_or_none_is_missed(
    ttft_s: float | None, tpot_s: float | None
) -> None:
    shares = Shares(70, 40)
    assert step([Window(shares, 10.0, ttft_s, tpot_s)], TARGETS) == shares


def test_a_phase_without_a_target_gives_way_as_far_as_it_goes() -> None:
    plant = Plant(a1=200.0, b1=0.0, a2=1.0, b2=0.0, load=0.0, shared=True)
    windows = plant.run(Shares(100, 100), 12, Targets(0.5, 0.0))
    assert windows[-1].shares == Shares(FULL, LEAST)


def test_a_phase_that_would_miss_its_own_target_does_not_give_way() -> None:
    windows = [Window(Shares(100, 60), 0.0, 2.0, 0.049)]
    assert step(windows, TARGETS) == Shares(100, 60)


def test_the_curve_is_found_again() -> None:
    line = fit([(1 / share, 3 / share + 0.2) for share in (20, 40, 60)], 0.25)
    assert line.a == pytest.approx(3.0)
    assert line.b == pytest.approx(0.2)
    assert fit([(0.1, 1.0), (0.1, 3.0)], 3.0) == Line(pytest.approx(20.0), 0.0)
    assert fit([(0.1, 3.0), (0.2, 1.0)], 1.0).b == 0.0, "noise: a larger share is never slower"
    assert fit([(0.1, None)], None) == Line(0.0, 0.0)


@given(
    a1=st.floats(0.1, 50),
    a2=st.floats(0.1, 5),
    load=st.floats(0, 90),
    shared=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_shares_stay_shares_and_move_a_phase_at_a_time(
    a1: float, a2: float, load: float, shared: bool, seed: int
) -> None:
    plant, noise = Plant(a1, 0.05, a2, 0.005, load, shared), random.Random(seed)
    windows = [plant.window(Shares(80, 100))]
    for _ in range(20):
        shares, before = step(windows, TARGETS), windows[-1].shares
        assert LEAST <= shares.prefill <= FULL
        assert LEAST <= shares.decode <= FULL
        assert shares.prefill == before.prefill or shares.decode == before.decode
        if meets(windows[-1]):
            assert shares == before
        windows.append(plant.window(shares, noise.uniform(0.8, 1.2)))
