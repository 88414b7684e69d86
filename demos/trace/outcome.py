"""What one answer was like for its user, and what it took of the cloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demos.trace.call import Call
from demos.trace.case import TargetCase
from demos.trace.requests import Request

# Silent reading, of which the QoE of Andes (arXiv 2404.16283) makes its expectation.
READING_TPS = 4.8


@dataclass(slots=True)
class Outcome:
    """One answer. Times are seconds on the device's clock."""

    request: Request
    shown_tokens: int
    ttft_s: float
    # (last - first shown) / (tokens - 1); None for a single token.
    tpot_s: float | None
    max_gap_s: float
    # Index of the token behind that gap.
    max_gap_index: int
    qoe: float
    takeover_index: int | None
    # The fewest tokens of the cloud without a stall, for who knows speed and length.
    oracle_tokens: int
    refused: bool
    # None: the cloud was not asked.
    call: Call | None

    @property
    def cloud_tokens(self) -> int:
        return self.call.made if self.call is not None else 0


def judge(
    request: Request,
    shown_s: Sequence[float],
    targets: TargetCase,
    *,
    takeover_index: int | None = None,
    oracle_tokens: int = 0,
    refused: bool = False,
    call: Call | None = None,
) -> Outcome:
    """The figures of one answer; `shown_s` are moments of the replay."""
    since_s = np.asarray(shown_s) - request.at_s
    gaps_s = np.diff(since_s)
    widest = int(np.argmax(gaps_s)) if len(gaps_s) else 0
    return Outcome(
        request=request,
        shown_tokens=len(shown_s),
        ttft_s=float(since_s[0]) if len(shown_s) else float("inf"),
        tpot_s=float(gaps_s.mean()) if len(gaps_s) else None,
        max_gap_s=float(gaps_s[widest]) if len(gaps_s) else 0.0,
        max_gap_index=widest + 1,
        qoe=quality_of_experience(since_s, targets.ttft_s),
        takeover_index=takeover_index,
        oracle_tokens=oracle_tokens,
        refused=refused,
        call=call,
    )


def quality_of_experience(shown_s: np.ndarray, expected_ttft_s: float) -> float:
    """1 - S_delay / S_whole of Andes; `shown_s` counts from the request, 0 for no answer.

    Expected is a token every 1 / READING_TPS from `expected_ttft_s` on; nobody reads
    faster. S_delay is the area between what is expected and what is read, S_whole the area
    under what is expected, up to the last token read.
    """
    if not len(shown_s):
        return 0.0
    steps_s = np.arange(len(shown_s)) / READING_TPS
    read_s = np.maximum.accumulate(shown_s - steps_s) + steps_s
    expected_s = expected_ttft_s + steps_s
    whole_s = float(np.sum(max(read_s[-1], expected_s[-1]) - expected_s))
    delayed_s = float(np.sum(np.maximum(0.0, read_s - expected_s)))
    if not whole_s:
        return 1.0 if not delayed_s else 0.0
    return max(0.0, 1 - delayed_s / whole_s)
