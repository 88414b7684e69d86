"""How long one device really takes, in one answer."""

from __future__ import annotations

import random

from segue_protocol.timeline import DeviceProfile


class TrueSpeed:
    """The profile's times, off by the speed of this answer and by every step's own jitter."""

    def __init__(
        self, profile: DeviceProfile, speed: float, jitter: float, chance: random.Random
    ) -> None:
        self._profile = profile
        self._speed = speed
        self._jitter = jitter
        self._chance = chance

    def append_s(self, tokens: int, cells: int) -> float:
        """One step of `tokens` tokens behind `cells`; a single token is a decode."""
        profile = self._profile
        if tokens == 1:
            expected_s = profile.decode_s
        else:
            expected_s = profile.prefill_left_s(cells + tokens, cells)
        return self._vary(expected_s)

    def handover_s(self) -> float:
        """From the last token absorbed to the first one made."""
        return self._vary(self._profile.handover_s)

    @property
    def mean_profile(self) -> DeviceProfile:
        """What an oracle knows of the device in this answer."""
        profile, speed = self._profile, self._speed
        return DeviceProfile(
            prefill_base_s=profile.prefill_base_s / speed,
            prefill_per_token_s=profile.prefill_per_token_s / speed,
            prefill_per_token2_s=profile.prefill_per_token2_s / speed,
            decode_s=profile.decode_s / speed,
            handover_s=profile.handover_s / speed,
        )

    def _vary(self, expected_s: float) -> float:
        step = self._chance.uniform(1 - self._jitter, 1 + self._jitter)
        return expected_s / (self._speed * step)
