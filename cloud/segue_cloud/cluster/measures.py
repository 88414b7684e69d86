"""What a group's requests took lately, and how often workers turned them away."""

from __future__ import annotations

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


class GroupMeasures:
    """A sliding window over the answers and the offers of one group.

    What has left the window is forgotten as new things come: nobody may ever ask.
    """

    def __init__(self, window_s: float = 30.0) -> None:
        self._window_s = window_s
        self._answers: deque[tuple[float, float, float, int]] = deque()
        self._offers: deque[tuple[float, bool]] = deque()
        self._since_s: float | None = None

    def answered(
        self, now_s: float, *, prefill_s: float, decode_s: float, cloud_tokens: int
    ) -> None:
        """One answer's account, when the cloud's part of it is over."""
        self._slide(now_s)
        self._answers.append((now_s, prefill_s, decode_s, cloud_tokens))

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
        _, prefills_s, decodes_s, tokens = zip(*self._answers, strict=True)
        assert self._since_s is not None
        seen_s = min(self._window_s, now_s - self._since_s)
        return GroupSummary(
            requests_per_s=len(self._answers) / max(seen_s, 1e-9),
            prefill_s=fmean(prefills_s),
            decode_s=fmean(decodes_s),
            cloud_tokens=fmean(tokens),
            rejected_share=rejected_share,
        )

    def __len__(self) -> int:
        """Answers and offers that are remembered."""
        return len(self._answers) + len(self._offers)

    def _slide(self, now_s: float) -> None:
        if self._since_s is None:
            self._since_s = now_s
        begin_s = now_s - self._window_s
        while self._answers and self._answers[0][0] < begin_s:
            self._answers.popleft()
        while self._offers and self._offers[0][0] < begin_s:
            self._offers.popleft()
