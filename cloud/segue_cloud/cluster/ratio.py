"""How many workers of a group should prefill, and when to switch one (P/D-Serve 3.3).

Throughput is the smaller of what both roles can take, so it is highest where

    n_p b_p / T_p  ~=  n_d b_d / T_d

A prefill worker runs one prompt at a time however many slots it has: with T_p
the time a prompt costs it, b_p is 1. Both step functions are pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from segue_protocol.wire import private


@dataclass(frozen=True, slots=True)
class RatioView:
    """One group now. Times are seconds; T_p and T_d as in :class:`GroupSummary`."""

    prefill_workers: int
    decode_workers: int
    prefill_s: float | None
    decode_s: float | None
    # b_d: places in one decode worker's batch.
    decode_places: int
    rejected_share: float


def balanced_prefill_workers(view: RatioView) -> float | None:
    """The number of prefill workers that balances the group; None before it was measured.

    Not rounded, and not kept within what the group has.
    """
    if not view.prefill_s or not view.decode_s or view.decode_places < 1:
        return None
    prefill_work = view.prefill_s
    decode_work = view.decode_s / view.decode_places
    total = view.prefill_workers + view.decode_workers
    return total * prefill_work / (prefill_work + decode_work)


@dataclass(frozen=True, slots=True)
class Damping:
    """Against oscillation: a switch costs a drain, and measures need time."""

    # The balance must lie this far from what there is, in workers.
    deadband_workers: float = 0.75
    # For this long, in the same direction.
    hold_s: float = 5.0
    # No other switch so soon after one.
    rest_s: float = 15.0
    # A group that turns nobody away needs no other ratio.
    rejected_share: float = 0.02


@dataclass(frozen=True, slots=True)
class RatioState:
    """What the controller remembers between two steps."""

    wanted: private.Role = private.ROLE_UNSPECIFIED
    since_s: float = 0.0
    switched_s: float = float("-inf")


def step(
    state: RatioState, view: RatioView, now_s: float, damping: Damping
) -> tuple[RatioState, private.Role | None]:
    """The role that one worker should switch to now, or None; and the new state."""
    wanted = _wanted(view, damping)
    if wanted != state.wanted:
        state = replace(state, wanted=wanted, since_s=now_s)
    held = now_s - state.since_s >= damping.hold_s
    rested = now_s - state.switched_s >= damping.rest_s
    if wanted == private.ROLE_UNSPECIFIED or not held or not rested:
        return state, None
    return RatioState(switched_s=now_s), wanted


def _wanted(view: RatioView, damping: Damping) -> private.Role:
    """The role that is short, as far as it may be helped."""
    balanced = balanced_prefill_workers(view)
    if balanced is None or view.rejected_share < damping.rejected_share:
        return private.ROLE_UNSPECIFIED
    missing = balanced - view.prefill_workers
    # One worker of each role must stay, whatever the balance is.
    if missing > damping.deadband_workers and view.decode_workers > 1:
        return private.ROLE_PREFILL
    if missing < -damping.deadband_workers and view.prefill_workers > 1:
        return private.ROLE_DECODE
    return private.ROLE_UNSPECIFIED
