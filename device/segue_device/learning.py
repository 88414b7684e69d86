"""What every answer teaches about this device and its network; pure step functions.

An estimate follows what is seen (exponential average), and so does the
deviation from it, from which the tuner makes its margin. What lies far outside
of that (a laptop that was closed, a build in the background) is not learnt;
only when it stays so, answer after answer, the estimate follows, slowly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from segue_device.events import Result
from segue_protocol.timeline import DeviceProfile
from segue_protocol.tuning import Network

WEIGHT = 0.2
GUARD_DEVIATIONS = 3.0
# As many strange answers in a row, to the same side, are no accident.
PERSISTENT = 4

# Relative errors of a device's times: before anything is known, and at least.
START_ERROR = 0.1
LEAST_ERROR = 0.02
# Below this a deviation is never strange: relative, and of a network in seconds.
USUAL_RELATIVE = 0.15
USUAL_NETWORK_S = 0.05


@dataclass(frozen=True, slots=True)
class Track:
    """How far one quantity strays from its estimate. `strange`: outliers in a row, signed."""

    deviation: float
    strange: int = 0


def follow(track: Track, error: float, usual: float) -> tuple[Track, float]:
    """The next state, and by how much to move the estimate that missed by `error`.

    `usual`: no error up to here is an outlier, however small the deviation.
    """
    limit = max(usual, GUARD_DEVIATIONS * track.deviation)
    if abs(error) <= limit:
        variance = track.deviation**2 + WEIGHT * (error**2 - track.deviation**2)
        return Track(math.sqrt(variance)), WEIGHT * error
    sign = 1 if error > 0 else -1
    strange = track.strange + sign if track.strange * sign > 0 else sign
    shift = sign * WEIGHT * limit if abs(strange) >= PERSISTENT else 0.0
    return replace(track, strange=strange), shift


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer's times over those of the profile; None where too little was done."""

    prefill: float | None = None
    decode: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceSpeed:
    """A profile that is learnt on; its `relative_error` is the prefill's."""

    profile: DeviceProfile
    prefill: Track
    decode: Track

    @classmethod
    def of(cls, profile: DeviceProfile) -> DeviceSpeed:
        """Begin with a profile that was measured, or stored by an earlier run."""
        track = Track(profile.relative_error or START_ERROR)
        return cls(profile, track, track)

    def after(self, seen: Seen) -> DeviceSpeed:
        """What is known after one more answer."""
        profile, prefill, decode = self.profile, self.prefill, self.decode
        if seen.prefill is not None:
            prefill, shift = follow(prefill, math.log(seen.prefill), USUAL_RELATIVE)
            times = math.exp(shift)
            profile = replace(
                profile,
                prefill_base_s=profile.prefill_base_s * times,
                prefill_per_token_s=profile.prefill_per_token_s * times,
                prefill_per_token2_s=profile.prefill_per_token2_s * times,
                relative_error=max(LEAST_ERROR, prefill.deviation),
            )
        if seen.decode is not None:
            decode, shift = follow(decode, math.log(seen.decode), USUAL_RELATIVE)
            profile = replace(profile, decode_s=profile.decode_s * math.exp(shift))
        return DeviceSpeed(profile, prefill, decode)


@dataclass(frozen=True, slots=True)
class NetworkSpeed:
    """What the network adds to a cloud's TTFT; `added_s` None before the first answer."""

    added_s: float | None = None
    track: Track = Track(USUAL_NETWORK_S / GUARD_DEVIATIONS)

    def after(self, added_s: float) -> NetworkSpeed:
        """What is known after an answer to whose TTFT it added so much."""
        if self.added_s is None:
            return replace(self, added_s=max(0.0, added_s))
        track, shift = follow(self.track, added_s - self.added_s, USUAL_NETWORK_S)
        return NetworkSpeed(max(0.0, self.added_s + shift), track)

    @property
    def network(self) -> Network | None:
        """For the tuner."""
        return None if self.added_s is None else Network(self.added_s, self.track.deviation)


def network_added_s(result: Result) -> float | None:
    """What the network added to the TTFT of an answer; None where the cloud told no times.

    Two durations, each on its own clock.
    """
    if result.cloud is None or not result.usage.cloud_tokens or result.takeover_index == 0:
        return None
    timings = result.cloud.timings
    return result.timings.received_s[0] - timings.waiting_s - timings.prefill_s
