"""How long the device's prefill will still take, from how it went so far."""

from __future__ import annotations

from segue_protocol.timeline import DeviceProfile

# A prefill of fewer tokens says little about the profile.
MIN_TOKENS = 64


class PrefillClock:
    """Scales the device's profile by what was measured in this answer.

    `cached_tokens` of the prompt were in the cache before it began.
    """

    def __init__(self, profile: DeviceProfile | None, cached_tokens: int) -> None:
        self._profile = profile
        self._cached_tokens = cached_tokens
        self._started_s: float | None = None
        self._done_tokens = cached_tokens
        self._took_s = 0.0

    def start(self, now_s: float) -> None:
        """The engine begins, or goes on after a pause: what lay between does not count."""
        self._started_s = now_s - self._took_s

    def observe(self, done_tokens: int, now_s: float) -> None:
        """`done_tokens` are in the cache now."""
        assert self._started_s is not None
        self._done_tokens = done_tokens
        self._took_s = now_s - self._started_s

    @property
    def ratio(self) -> float | None:
        """What it took over what the profile says; None where too little was prefilled."""
        if self._profile is None or self._done_tokens - self._cached_tokens < MIN_TOKENS:
            return None
        expected_s = self._profile.prefill_left_s(self._done_tokens, self._cached_tokens)
        return self._took_s / expected_s if expected_s > 0 and self._took_s > 0 else None

    def left_s(self, left_tokens: int, now_s: float) -> float:
        """Seconds until `left_tokens` more are prefilled; 0 while nothing is known."""
        if self._profile is None or self._started_s is None:
            return 0.0
        scale = 1.0
        expected_s = self._profile.prefill_left_s(self._done_tokens, self._cached_tokens)
        if expected_s > 0:
            scale = self._took_s / expected_s
        total_tokens = self._done_tokens + left_tokens
        whole_left_s = self._profile.prefill_left_s(total_tokens, self._done_tokens) * scale
        since_chunk_s = now_s - self._started_s - self._took_s
        return max(0.0, whole_left_s - since_chunk_s)
