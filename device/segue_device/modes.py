"""Where an answer may run, decided before anything is opened or sent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from segue_protocol.errors import Unsupported

NO_CLOUD_VARIABLE = "SEGUE_NO_CLOUD"


class Mode(str, Enum):
    """What an app asks for.

    SPLIT: the cloud begins, the device takes over; without a cloud the device
    alone. PREFER_ON_DEVICE: the cloud only where there is no device model.
    PREFER_IN_CLOUD: the whole answer from the cloud, the device only if the
    cloud is lost. ONLY_ON_DEVICE, ONLY_IN_CLOUD: that side or an error.
    """

    SPLIT = "split"
    PREFER_ON_DEVICE = "prefer_on_device"
    PREFER_IN_CLOUD = "prefer_in_cloud"
    ONLY_ON_DEVICE = "only_on_device"
    ONLY_IN_CLOUD = "only_in_cloud"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which sides take part; `standby`: the device only once the cloud is lost."""

    device: bool
    cloud: bool
    standby: bool = False


def cloud_is_forbidden() -> bool:
    """The user's word, ``SEGUE_NO_CLOUD=1``, wins over the app's code."""
    return os.environ.get(NO_CLOUD_VARIABLE, "") not in ("", "0")


def plan(mode: Mode, *, has_device: bool, has_cloud: bool, forbidden: bool) -> Plan:
    """Decide. Raises Unsupported, with a reason, when the mode cannot be had."""
    usable_cloud = has_cloud and not forbidden
    if mode is Mode.ONLY_IN_CLOUD or (mode is Mode.PREFER_IN_CLOUD and not has_device):
        if not usable_cloud:
            raise _no_cloud(mode, forbidden)
        return Plan(device=False, cloud=True)
    if not has_device:
        if mode is Mode.PREFER_ON_DEVICE and usable_cloud:
            return Plan(device=False, cloud=True)
        raise Unsupported(
            f"this client has no device model, which {mode.value} needs; pass a runner, or use "
            f"{Mode.ONLY_IN_CLOUD.value}",
            reason="NO_DEVICE_MODEL",
        )
    if mode in (Mode.ONLY_ON_DEVICE, Mode.PREFER_ON_DEVICE) or not usable_cloud:
        return Plan(device=True, cloud=False)
    return Plan(device=True, cloud=True, standby=mode is Mode.PREFER_IN_CLOUD)


def _no_cloud(mode: Mode, forbidden: bool) -> Unsupported:
    if forbidden:
        return Unsupported(
            f"{NO_CLOUD_VARIABLE} forbids the cloud on this device, {mode.value} needs it; unset "
            "it, or use a mode that may run on the device",
            reason="CLOUD_FORBIDDEN",
        )
    return Unsupported(
        f"this client has no cloud, which {mode.value} needs; pass a transport, or use "
        f"{Mode.ONLY_ON_DEVICE.value}",
        reason="NO_CLOUD",
    )
