"""What the page can set for an answer, and the devices that can be emulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from demos.split.emulation import Emulation
from segue_device import DeviceProfile, Mode
from segue_protocol.errors import InvalidRequest

MAX_RTT_MS = 1_000
MAX_ANSWER_TOKENS = 400


@dataclass(frozen=True, slots=True)
class EmulatedDevice:
    """A speed with a name; nothing of it is a measurement of a product."""

    name: str
    label: str
    profile: DeviceProfile

    def as_json(self) -> dict[str, Any]:
        """For the page's list."""
        profile = self.profile
        return {
            "name": self.name,
            "label": self.label,
            "prefillTokensPerS": round(1 / profile.prefill_per_token_s),
            "decodeTokensPerS": round(1 / profile.decode_s),
        }


def _device(name: str, label: str, prefill_tps: float, decode_tps: float) -> EmulatedDevice:
    profile = DeviceProfile(0.0, 1 / prefill_tps, 0.0, 1 / decode_tps, 0.02)
    return EmulatedDevice(name, label, profile)


_PHONE = Emulation.load()

DEVICES = {
    each.name: each
    for each in (
        _device("phone-250", "Older phone", 250, 12),
        EmulatedDevice(_PHONE.name, "Phone", _PHONE.profile),
        _device("tablet-1600", "Tablet", 1_600, 30),
        _device("laptop-3000", "Laptop", 3_000, 40),
    )
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How one answer is made."""

    mode: Mode = Mode.SPLIT
    device: str = _PHONE.name
    rtt_ms: int = round(_PHONE.network_rtt_s * 1e3)
    max_tokens: int = 160
    # The share of the prompt that the device reads, by the cloud's choice; 1 is all of it.
    keep_ratio: float = 1.0

    @classmethod
    def parse(cls, values: object) -> Settings:
        """From the page's JSON. Raises InvalidRequest naming what is wrong."""
        if not isinstance(values, Mapping):
            raise InvalidRequest("settings are no object; send {name: value}", param="settings")
        unknown = sorted(set(values) - {each.name for each in fields(cls)})
        if unknown:
            raise InvalidRequest(f"there is no setting {unknown[0]!r}", param="settings")
        settings = cls(**{**values, "mode": Mode.of(values.get("mode", Mode.SPLIT))})
        if settings.device not in DEVICES:
            raise InvalidRequest(
                f"device {settings.device!r}, expected one of {', '.join(DEVICES)}", param="device"
            )
        _require_within("rtt_ms", settings.rtt_ms, 0, MAX_RTT_MS)
        _require_within("max_tokens", settings.max_tokens, 1, MAX_ANSWER_TOKENS)
        if type(settings.keep_ratio) not in (int, float) or not 0 < settings.keep_ratio <= 1:
            raise InvalidRequest(
                f"keep_ratio is {settings.keep_ratio!r}, expected a share above 0 and up to 1",
                param="keep_ratio",
            )
        return settings

    @property
    def profile(self) -> DeviceProfile:
        """How fast the device is."""
        return DEVICES[self.device].profile

    def as_json(self) -> dict[str, Any]:
        """As :meth:`parse` takes them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def _require_within(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequest(
            f"{name} is {value!r}, expected a whole number from {low} to {high}", param=name
        )
