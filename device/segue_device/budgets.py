"""How long an app waits for what, by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from segue_protocol.errors import DeadlineExceeded, InvalidRequest


@dataclass(frozen=True, slots=True)
class Budgets:
    """Seconds; None is without end.

    `connect_s`: until the cloud has taken the request. `first_token_s`: from the
    request to the cloud's first token. `inter_token_s`: from one token to the
    next that the cloud owes. Where one of these runs out the device goes on
    alone, and without a device the answer fails. `total_s` ends the answer,
    whoever writes. Time asleep does not count.
    """

    connect_s: float | None = 10.0
    first_token_s: float | None = 30.0
    inter_token_s: float | None = 30.0
    total_s: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidRequest(
                    f"the time budget {each.name} is {value}, expected a number of seconds above "
                    "0, or None for no limit"
                )


@dataclass(frozen=True, slots=True)
class BudgetView:
    """Moments of one answer on the device's clock; None: that budget does not run now."""

    asleep: bool
    started_s: float
    connecting_since_s: float | None
    first_token_since_s: float | None
    inter_token_since_s: float | None


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a budget runs out. `fatal`: it ends the answer, not only the cloud's part."""

    at_s: float
    name: str
    budget_s: float
    fatal: bool

    def error(self) -> DeadlineExceeded:
        what = "the answer was not complete" if self.fatal else "the cloud did not deliver"
        return DeadlineExceeded(
            f"{what} within the time budget {self.name} of {self.budget_s} s; raise the budget, "
            "or look for what holds it up",
            reason=f"{self.name.removesuffix('_s').upper()}_BUDGET",
        )


def next_deadline(budgets: Budgets, view: BudgetView) -> Deadline | None:
    """The budget that runs out first; a pure function of explicit state."""
    if view.asleep:
        return None
    running = (
        ("connect_s", budgets.connect_s, view.connecting_since_s),
        ("first_token_s", budgets.first_token_s, view.first_token_since_s),
        ("inter_token_s", budgets.inter_token_s, view.inter_token_since_s),
        ("total_s", budgets.total_s, view.started_s),
    )
    deadlines = [
        Deadline(since_s + budget_s, name, budget_s, fatal=name == "total_s")
        for name, budget_s, since_s in running
        if budget_s is not None and since_s is not None
    ]
    return min(deadlines, key=lambda each: each.at_s, default=None)
