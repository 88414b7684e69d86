"""How long one token takes on this device, from its profile and from what was seen."""

from __future__ import annotations

# Weight of the newest interval: a handful of tokens tells a device that has
# slowed down (heat, another app) from one that stumbled once.
_WEIGHT = 0.2

# Fewer intervals say little about the profile.
MIN_INTERVALS = 8


class DecodeClock:
    """A moving average of the seconds from one own token to the next."""

    def __init__(self, profile_decode_s: float | None) -> None:
        """`profile_decode_s` is the value until the first interval was seen."""
        self.token_s = profile_decode_s
        self._profile_decode_s = profile_decode_s
        self._intervals = 0
        self._last_s: float | None = None

    def made(self, now_s: float) -> None:
        """The device has made a token."""
        if self._last_s is not None:
            seen_s = now_s - self._last_s
            known_s = seen_s if self.token_s is None else self.token_s
            self.token_s = known_s + _WEIGHT * (seen_s - known_s)
            self._intervals += 1
        self._last_s = now_s

    @property
    def ratio(self) -> float | None:
        """What a token takes over what the profile says; None where too few were made."""
        if not self._profile_decode_s or not self.token_s or self._intervals < MIN_INTERVALS:
            return None
        return self.token_s / self._profile_decode_s

    def pause(self) -> None:
        """What lies before the next token is not decoding."""
        self._last_s = None
