"""The two state machines: complete tables, reachable states, terminal ends."""

from __future__ import annotations

import pytest

from segue_cloud.gateway import state as cloud
from segue_device import state as device
from segue_protocol.errors import InternalError


@pytest.mark.parametrize(
    ("states", "messages", "actions"),
    [
        (device.DeviceState, device.MESSAGES, device.ACTIONS),
        (cloud.RequestState, cloud.MESSAGES, cloud.ACTIONS),
    ],
    ids=["device", "cloud"],
)
def test_every_state_says_what_every_message_does(states, messages, actions) -> None:
    assert set(actions) == {(state, message) for state in states for message in messages}


@pytest.mark.parametrize(
    ("states", "transitions", "first", "ends"),
    [
        (
            device.DeviceState,
            device.TRANSITIONS,
            {device.DeviceState.CONNECTING, device.DeviceState.DEVICE_ONLY},
            device.OVER,
        ),
        (
            cloud.RequestState,
            cloud.TRANSITIONS,
            {cloud.RequestState.WAITING},
            {cloud.RequestState.FINISHED},
        ),
    ],
    ids=["device", "cloud"],
)
def test_every_state_is_reachable_and_can_end(states, transitions, first, ends) -> None:
    assert set(transitions) == set(states)
    reached, frontier = set(first), list(first)
    while frontier:
        for following in transitions[frontier.pop()] - reached:
            reached.add(following)
            frontier.append(following)
    assert reached == set(states)
    for state in states:
        if state in ends:
            assert not transitions[state], f"{state} is an end"
        else:
            assert transitions[state] & set(ends), f"{state} can be ended at once"


@pytest.mark.parametrize("module", [device, cloud], ids=["device", "cloud"])
def test_only_the_table_allows_a_transition(module) -> None:
    for old, allowed in module.TRANSITIONS.items():
        for new in type(old):
            if new in allowed:
                module.require_transition(old, new)
            else:
                with pytest.raises(InternalError, match=old.name):
                    module.require_transition(old, new)


def test_the_wire_names_every_cloud_state() -> None:
    from segue_protocol.wire import public

    for state in cloud.RequestState:
        assert public.RequestState.Name(state.value) == f"REQUEST_STATE_{state.name}"


def test_the_tables_name_every_message_of_the_wire() -> None:
    from segue_protocol.wire import public

    to_device = public.GenerateResponse.DESCRIPTOR.oneofs_by_name["message"].fields
    to_cloud = public.GenerateRequest.DESCRIPTOR.oneofs_by_name["message"].fields
    assert {field.name for field in to_device} | {"lost"} == set(device.MESSAGES)
    assert {field.name for field in to_cloud} == set(cloud.MESSAGES)
