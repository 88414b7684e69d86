"""The table of modes: which side takes part, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from segue_device.modes import Mode, Plan, Situation, cloud_forbidden_by_user, plan
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


def _plan(mode: Mode, has_device: bool, has_cloud: bool, **more: object) -> Plan | str:
    try:
        found = plan(mode, Situation(has_device, has_cloud, **more))
        return dataclasses.replace(found, reason=None, explanation="")
    except Unsupported as refused:
        return refused.reason


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_the_table(mode: Mode) -> None:
    found = (_plan(mode, True, True), _plan(mode, True, False), _plan(mode, False, True))
    assert found == TABLE[mode]


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_a_forbidden_cloud_never_takes_part(mode: Mode) -> None:
    for has_device in (True, False):
        found = _plan(mode, has_device, True, cloud_forbidden="no")
        assert isinstance(found, str) or not found.cloud
    if mode is Mode.ONLY_IN_CLOUD:
        assert _plan(mode, True, True, cloud_forbidden="no") == "CLOUD_FORBIDDEN"


@pytest.mark.parametrize(
    ("value", "forbidden"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)]
)
def test_the_variable(monkeypatch: pytest.MonkeyPatch, value: str | None, forbidden: bool) -> None:
    monkeypatch.delenv("SEGUE_NO_CLOUD", raising=False)
    if value is not None:
        monkeypatch.setenv("SEGUE_NO_CLOUD", value)
    assert (cloud_forbidden_by_user() is not None) is forbidden


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
def test_a_spared_device_leaves_the_work_to_a_cloud_that_may_be_used(mode: Mode) -> None:
    found = _plan(mode, True, True, device_spared="it is hot")
    only_here = mode is Mode.ONLY_ON_DEVICE
    assert found == (DEVICE if only_here else CLOUD if mode is Mode.ONLY_IN_CLOUD else STANDBY)
    if mode is not Mode.ONLY_IN_CLOUD:
        assert _plan(mode, True, False, device_spared="it is hot") == DEVICE


def test_a_quick_device_needs_no_cloud_only_when_split() -> None:
    assert _plan(Mode.SPLIT, True, True, device_suffices="quick") == DEVICE
    assert _plan(Mode.PREFER_IN_CLOUD, True, True, device_suffices="quick") == STANDBY


def test_the_reason_is_told_where_a_wish_is_not_met() -> None:
    forbidden = Situation(True, True, cloud_forbidden="the user said no")
    assert plan(Mode.SPLIT, forbidden).reason == "the user said no"
    assert plan(Mode.ONLY_ON_DEVICE, forbidden).reason is None
    spared = Situation(True, True, device_spared="it is hot")
    assert plan(Mode.SPLIT, spared).reason == "it is hot"
    assert plan(Mode.PREFER_IN_CLOUD, spared).reason is None


def test_the_tuners_word_is_an_explanation_and_no_complaint() -> None:
    found = plan(Mode.SPLIT, Situation(True, True, device_suffices="within the target"))
    assert (found.explanation, found.reason) == ("within the target", None)
    assert plan(Mode.PREFER_ON_DEVICE, Situation(True, True)).explanation == ""
