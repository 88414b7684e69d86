"""What a group's requests took lately, and how often workers turned them away."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """Means over the window; seconds on the gateway's clock, None before there is any."""

    requests_per_s: float = 0.0
    # T_p: what one request costs a prefill worker. T_d: how long it holds a place in a batch.
    prefill_s: float | None = None
    decode_s: float | None = None
    # Tokens the cloud made per answer: the credit really used.
    cloud_tokens: float = 0.0
    # Rejected offers, of all offers.
    rejected_share: float = 0.0
    # What nine in ten answers kept, from arrival and in the batch.
    ttft_s: float | None = None
    tpot_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    at_s: float
    prefill_s: float
    decode_s: float
    cloud_tokens: int
    ttft_s: float | None


class GroupMeasures:
    """A sliding window over the answers and the offers of one group.

    What has left the window is forgotten as new things come: nobody may ever ask.
    """

    def __init__(self, window_s: float = 30.0) -> None:
        self._window_s = window_s
        self._answers: deque[_Answer] = deque()
        self._offers: deque[tuple[float, bool]] = deque()
        self._since_s: float | None = None

    def answered(
        self,
        now_s: float,
        *,
        prefill_s: float,
        decode_s: float,
        cloud_tokens: int,
        ttft_s: float | None = None,
    ) -> None:
        """One answer's account, when the cloud's part of it is over."""
        self._slide(now_s)
        self._answers.append(_Answer(now_s, prefill_s, decode_s, cloud_tokens, ttft_s))

    def offered(self, now_s: float, *, rejected: bool) -> None:
        """A worker was offered a request."""
        self._slide(now_s)
        self._offers.append((now_s, rejected))

    def restart(self, now_s: float) -> None:
        """Forget what was measured in another state of the group."""
        self._answers.clear()
        self._offers.clear()
        self._since_s = now_s

    def summary(self, now_s: float) -> GroupSummary:
        """Means of what happened within the window before `now_s`."""
        self._slide(now_s)
        offers = [rejected for _, rejected in self._offers]
        rejected_share = fmean(offers) if offers else 0.0
        if not self._answers:
            return GroupSummary(rejected_share=rejected_share)
        answers = self._answers
        paces_s = [
            each.decode_s / (each.cloud_tokens - 1) for each in answers if each.cloud_tokens > 1
        ]
        assert self._since_s is not None
        seen_s = min(self._window_s, now_s - self._since_s)
        return GroupSummary(
            requests_per_s=len(self._answers) / max(seen_s, 1e-9),
            prefill_s=fmean(each.prefill_s for each in answers),
            decode_s=fmean(each.decode_s for each in answers),
            cloud_tokens=fmean(each.cloud_tokens for each in answers),
            rejected_share=rejected_share,
            ttft_s=_kept_by_most([each.ttft_s for each in answers if each.ttft_s is not None]),
            tpot_s=_kept_by_most(paces_s),
        )

    def __len__(self) -> int:
        """Answers and offers that are remembered."""
        return len(self._answers) + len(self._offers)

    def _slide(self, now_s: float) -> None:
        if self._since_s is None:
            self._since_s = now_s
        begin_s = now_s - self._window_s
        while self._answers and self._answers[0].at_s < begin_s:
            self._answers.popleft()
        while self._offers and self._offers[0][0] < begin_s:
            self._offers.popleft()


def _kept_by_most(seconds: list[float]) -> float | None:
    """What nine in ten do not exceed."""
    return sorted(seconds)[math.ceil(0.9 * len(seconds)) - 1] if seconds else None
