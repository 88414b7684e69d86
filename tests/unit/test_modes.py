"""The table of modes: which side takes part, and what is refused."""

from __future__ import annotations

import pytest

from segue_device.modes import Mode, Plan, cloud_is_forbidden, plan
from segue_protocol.errors import Unsupported

DEVICE, CLOUD = Plan(device=True, cloud=False), Plan(device=False, cloud=True)
BOTH, STANDBY = Plan(device=True, cloud=True), Plan(device=True, cloud=True, standby=True)

# mode: with both, device alone, cloud alone
TABLE: dict[Mode, tuple[Plan, Plan | str, Plan | str]] = {
    Mode.SPLIT: (BOTH, DEVICE, "NO_DEVICE_MODEL"),
    Mode.PREFER_ON_DEVICE: (DEVICE, DEVICE, CLOUD),
    Mode.PREFER_IN_CLOUD: (STANDBY, DEVICE, CLOUD),
    Mode.ONLY_ON_DEVICE: (DEVICE, DEVICE, "NO_DEVICE_MODEL"),
    Mode.ONLY_IN_CLOUD: (CLOUD, "NO_CLOUD", CLOUD),
}


def _plan(mode: Mode, has_device: bool, has_cloud: bool, forbidden: bool = False) -> Plan | str:
    try:
        return plan(mode, has_device=has_device, has_cloud=has_cloud, forbidden=forbidden)
    except Unsupported as refused:
        return refused.reason


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_the_table(mode: Mode) -> None:
    found = (_plan(mode, True, True), _plan(mode, True, False), _plan(mode, False, True))
    assert found == TABLE[mode]


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_a_forbidden_cloud_never_takes_part(mode: Mode) -> None:
    for has_device in (True, False):
        found = _plan(mode, has_device, True, forbidden=True)
        assert isinstance(found, str) or not found.cloud
    if mode is Mode.ONLY_IN_CLOUD:
        assert _plan(mode, True, True, forbidden=True) == "CLOUD_FORBIDDEN"


@pytest.mark.parametrize(
    ("value", "forbidden"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)]
)
def test_the_variable(monkeypatch: pytest.MonkeyPatch, value: str | None, forbidden: bool) -> None:
    monkeypatch.delenv("SEGUE_NO_CLOUD", raising=False)
    if value is not None:
        monkeypatch.setenv("SEGUE_NO_CLOUD", value)
    assert cloud_is_forbidden() is forbidden
