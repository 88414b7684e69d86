"""Where an answer may run, decided before anything is opened or sent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from segue_protocol.errors import InvalidRequest, Unsupported

NO_CLOUD_VARIABLE = "SEGUE_NO_CLOUD"


class Mode(str, Enum):
    """What an app asks for.

    SPLIT: the cloud begins, the device takes over; without a cloud, or where it
    meets the app's target for the first token by itself, the device alone.
    PREFER_ON_DEVICE: the cloud only where there is no device model.
    PREFER_IN_CLOUD: the whole answer from the cloud, the device only if the
    cloud is lost. ONLY_ON_DEVICE, ONLY_IN_CLOUD: that side or an error.
    """

    SPLIT = "split"
    PREFER_ON_DEVICE = "prefer_on_device"
    PREFER_IN_CLOUD = "prefer_in_cloud"
    ONLY_ON_DEVICE = "only_on_device"
    ONLY_IN_CLOUD = "only_in_cloud"

    @classmethod
    def of(cls, mode: Mode | str) -> Mode:
        """A mode by its value. Raises InvalidRequest naming the known ones."""
        try:
            return cls(mode)
        except ValueError:
            known = ", ".join(each.value for each in cls)
            raise InvalidRequest(f"mode {mode!r}, expected one of {known}") from None


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decision depends on besides the mode. A reason is a clause, None does not hold."""

    has_device: bool
    has_cloud: bool
    # The user's word (the environment), or the app's (privacy) for this prompt.
    cloud_forbidden: str | None = None
    # The device should be spared.
    device_spared: str | None = None
    # The tuner's word that the device alone meets the app's target for the first token.
    device_suffices: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Which sides take part; `standby`: the device only once the cloud is lost.

    `reason` tells why this is not what the mode asks for in the first place,
    `explanation` why a split answer is the device's alone.
    """

    device: bool
    cloud: bool
    standby: bool = False
    reason: str | None = None
    explanation: str = ""


def cloud_forbidden_by_user() -> str | None:
    """The user's word, ``SEGUE_NO_CLOUD=1``, wins over the app's code."""
    forbidden = os.environ.get(NO_CLOUD_VARIABLE, "") not in ("", "0")
    return f"{NO_CLOUD_VARIABLE} forbids the cloud on this device" if forbidden else None


def plan(mode: Mode, situation: Situation) -> Plan:
    """Decide. Raises Unsupported, with a reason, when the mode cannot be had."""
    has_device = situation.has_device
    usable_cloud = situation.has_cloud and situation.cloud_forbidden is None
    if mode is Mode.ONLY_IN_CLOUD or (mode is Mode.PREFER_IN_CLOUD and not has_device):
        if not usable_cloud:
            raise _no_cloud(mode, situation)
        return Plan(device=False, cloud=True)
    if not has_device:
        if mode is Mode.PREFER_ON_DEVICE and usable_cloud:
            return Plan(device=False, cloud=True, reason="this client has no device model")
        raise Unsupported(
            f"this client has no device model, which {mode.value} needs; pass `model`, or use "
            f"{Mode.ONLY_IN_CLOUD.value}",
            reason="NO_DEVICE_MODEL",
        )
    if mode is Mode.ONLY_ON_DEVICE:
        return Plan(device=True, cloud=False)
    if not usable_cloud:
        wanted = mode is not Mode.PREFER_ON_DEVICE
        return Plan(device=True, cloud=False, reason=situation.cloud_forbidden if wanted else None)
    if situation.device_spared is not None and mode is not Mode.PREFER_IN_CLOUD:
        return Plan(device=True, cloud=True, standby=True, reason=situation.device_spared)
    if mode is Mode.PREFER_ON_DEVICE:
        return Plan(device=True, cloud=False)
    if mode is Mode.SPLIT and situation.device_suffices is not None:
        return Plan(device=True, cloud=False, explanation=situation.device_suffices)
    return Plan(device=True, cloud=True, standby=mode is Mode.PREFER_IN_CLOUD)


def _no_cloud(mode: Mode, situation: Situation) -> Unsupported:
    if situation.cloud_forbidden is not None:
        return Unsupported(
            f"{situation.cloud_forbidden}, {mode.value} needs it; lift that, or use a mode that "
            "may run on the device",
            reason="CLOUD_FORBIDDEN",
        )
    return Unsupported(
        f"this client has no cloud, which {mode.value} needs; pass `cloud`, or use "
        f"{Mode.ONLY_ON_DEVICE.value}",
        reason="NO_CLOUD",
    )
