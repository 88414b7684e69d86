"""The figures of one policy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from demos.trace.case import Case, TargetCase
from demos.trace.outcome import Outcome

GIB = 2**30


def figures(outcomes: Sequence[Outcome], case: Case) -> dict[str, Any]:
    """Over all answers; what the cloud gave is a mean per answer. Undefined is None."""
    calls = [each.call for each in outcomes if each.call is not None]
    tpots_s = [each.tpot_s for each in outcomes if each.tpot_s is not None]
    cells = sum(call.cells.total for call in calls) / len(outcomes)
    return {
        "ttft_p50_s": _percentile([each.ttft_s for each in outcomes], 50),
        "ttft_p99_s": _percentile([each.ttft_s for each in outcomes], 99),
        "tpot_mean_s": float(np.mean(tpots_s)) if tpots_s else None,
        "max_gap_p99_s": _percentile([each.max_gap_s for each in outcomes], 99),
        "stalled_answers": _share(each.max_gap_s > case.targets.stall_s for each in outcomes),
        "cloud_tokens": float(np.mean([each.cloud_tokens for each in outcomes])),
        "slot_seconds": sum(call.slots.total for call in calls) / len(outcomes),
        "kv_gib_seconds": cells * case.cloud.kv_bytes_per_token / GIB,
        "qoe": float(np.mean([each.qoe for each in outcomes])),
        # Beyond the table: who made the answers, and how many were turned away.
        "cloud_tokens_p50": _percentile([each.cloud_tokens for each in outcomes], 50),
        "keep_ratio": float(np.mean([call.keep_ratio for call in calls])) if calls else None,
        "asked_cloud": len(calls) / len(outcomes),
        "taken_over": _share(
            each.takeover_index is not None and each.call is not None for each in outcomes
        ),
        "refused": _share(each.refused for each in outcomes),
    }


def oracle_tokens(outcomes: Sequence[Outcome]) -> float:
    """Mean cloud tokens per answer of who knows every speed and length."""
    return float(np.mean([each.oracle_tokens for each in outcomes]))


def attainment(outcomes: Sequence[Outcome], targets: TargetCase) -> float:
    """Share of the answers that came whole and met every target."""
    return _share(missed(each, targets) is None for each in outcomes)


def binding(outcomes: Sequence[Outcome], targets: TargetCase) -> str | None:
    """What most of the answers that missed a target ran short of; None if all met them."""
    reasons = Counter(missed(each, targets) for each in outcomes)
    del reasons[None]
    return reasons.most_common(1)[0][0] if reasons else None


def missed(outcome: Outcome, targets: TargetCase) -> str | None:
    """None if the answer met every target, else what it ran short of."""
    if outcome.ttft_s > targets.ttft_s:
        return _late(outcome)
    gap = outcome.max_gap_s > targets.stall_s
    if gap or (outcome.tpot_s or 0.0) > targets.tpot_s:
        index = outcome.takeover_index
        device = index is not None and (not gap or outcome.max_gap_index >= index)
        return "device" if device else "decode speed"
    return None


def _late(outcome: Outcome) -> str:
    call = outcome.call
    if call is None:
        return "device"
    if outcome.refused and not outcome.shown_tokens:
        return call.waited_for or "prefill slots"
    turn_s = (call.first_token_s or math.inf) - call.arrived_s - call.waited_s
    return call.waited_for if call.waited_s > turn_s else "prefill slots"


def _percentile(values: Sequence[float], percent: float) -> float | None:
    with np.errstate(invalid="ignore"):  # between two answers that never came
        found = float(np.percentile(values, percent)) if len(values) else math.inf
    return found if math.isfinite(found) else None


def _share(hits: Any) -> float:
    return float(np.mean(list(hits)))
