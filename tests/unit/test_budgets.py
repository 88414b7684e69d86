"""Named time budgets: which one runs out first, and what it is called."""

from __future__ import annotations

import dataclasses
import math

import pytest

from segue_device import Budgets
from segue_device.budgets import BudgetView, next_deadline
from segue_protocol.errors import DeadlineExceeded, InvalidRequest

NOTHING = BudgetView(
    asleep=False,
    started_s=100.0,
    connecting_since_s=None,
    first_token_since_s=None,
    inter_token_since_s=None,
)
BUDGETS = Budgets(connect_s=1.0, first_token_s=5.0, inter_token_s=2.0, total_s=60.0)


@pytest.mark.parametrize(
    ("running", "name", "at_s"),
    [
        ({}, "total_s", 160.0),
        ({"connecting_since_s": 100.0, "first_token_since_s": 100.0}, "connect_s", 101.0),
        ({"first_token_since_s": 100.0}, "first_token_s", 105.0),
        ({"inter_token_since_s": 130.0}, "inter_token_s", 132.0),
        ({"inter_token_since_s": 159.0}, "total_s", 160.0),
    ],
)
def test_the_first_to_run_out(running: dict[str, float], name: str, at_s: float) -> None:
    deadline = next_deadline(BUDGETS, dataclasses.replace(NOTHING, **running))
    assert deadline is not None
    assert (deadline.name, deadline.at_s) == (name, at_s)
    assert deadline.fatal is (name == "total_s")
    error = deadline.error()
    assert isinstance(error, DeadlineExceeded)
    assert error.reason == name.removesuffix("_s").upper() + "_BUDGET"
    assert name in error.message


def test_without_a_budget_nothing_runs_out() -> None:
    everything = BudgetView(False, 0.0, 0.0, 0.0, 0.0)
    assert next_deadline(Budgets(None, None, None, None), everything) is None
    assert next_deadline(BUDGETS, dataclasses.replace(everything, asleep=True)) is None


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Budgets)])
def test_a_budget_is_a_time(name: str, value: float) -> None:
    with pytest.raises(InvalidRequest, match=name):
        Budgets(**{name: value})
