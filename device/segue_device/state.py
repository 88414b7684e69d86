"""The states of one answer on the device, and what every cloud message does in each."""

from __future__ import annotations

from enum import Enum, auto

from segue_protocol.errors import InternalError


class DeviceState(Enum):
    """Where one answer is.

    CONNECTING: the cloud has not confirmed yet; the engine prefills already.
    CLOUD: the cloud writes, the engine has not finished the prompt.
    CATCHING_UP: the prompt is prefilled, received tokens are absorbed.
    DEVICE: the device writes.
    RECONNECTING: the stream broke, the device resumes it, or takes over if it is ready first;
    or the device stopped, and asks the cloud to go on.
    CLOUD_ONLY, DEVICE_ONLY: one side alone, from the start or for lack of the other.
    DONE, FAILED: over.
    """

    CONNECTING = auto()
    CLOUD = auto()
    CATCHING_UP = auto()
    DEVICE = auto()
    CLOUD_ONLY = auto()
    DEVICE_ONLY = auto()
    RECONNECTING = auto()
    DONE = auto()
    FAILED = auto()


S = DeviceState

# CONNECTING -> DEVICE: the device was ready before the cloud confirmed.
# CONNECTING -> DEVICE_ONLY: no cloud; nothing of the answer existed yet.
# -> CLOUD_ONLY later: the device's engine failed.
# DEVICE, DEVICE_ONLY -> RECONNECTING: the device cannot go on and gives the log back.
TRANSITIONS: dict[DeviceState, frozenset[DeviceState]] = {
    S.CONNECTING: frozenset(
        {S.CLOUD, S.CATCHING_UP, S.CLOUD_ONLY, S.DEVICE, S.DEVICE_ONLY, S.DONE, S.FAILED}
    ),
    S.CLOUD: frozenset({S.CATCHING_UP, S.CLOUD_ONLY, S.RECONNECTING, S.DONE, S.FAILED}),
    S.CATCHING_UP: frozenset({S.DEVICE, S.CLOUD_ONLY, S.RECONNECTING, S.DONE, S.FAILED}),
    S.DEVICE: frozenset({S.RECONNECTING, S.DONE, S.FAILED}),
    S.CLOUD_ONLY: frozenset({S.RECONNECTING, S.DONE, S.FAILED}),
    S.RECONNECTING: frozenset({S.CLOUD, S.CATCHING_UP, S.CLOUD_ONLY, S.DEVICE, S.DONE, S.FAILED}),
    S.DEVICE_ONLY: frozenset({S.RECONNECTING, S.DONE, S.FAILED}),
    S.DONE: frozenset(),
    S.FAILED: frozenset(),
}


class Action(Enum):
    """What a message from the cloud does."""

    CONFIRM = "the cloud has taken the request"
    APPEND = "append to the log"
    REFINE = "leave out of the prefill what the cloud found dispensable"
    DISCARD = "too late: count as discarded"
    CLOUD_END = "the cloud's log is complete"
    RECORD_USAGE = "keep the cloud's account of itself"
    WARN = "tell the app"
    RECONNECT = "resume the stream, or go on without the cloud"
    LOSE = "go on without the cloud"
    IGNORE = "nothing"
    REFUSE = "protocol error: go on without the cloud"


MESSAGES = (
    "started",
    "refinement",
    "tokens",
    "progress",
    "finish",
    "heartbeat",
    "warning",
    "lost",  # not a message: the stream broke or ended early
)

_A = Action
_SILENT = {"refinement": _A.IGNORE, "progress": _A.IGNORE, "heartbeat": _A.IGNORE}
_CLOUD_WRITES = _SILENT | {
    "started": _A.REFUSE,
    "tokens": _A.APPEND,
    "finish": _A.CLOUD_END,
    "warning": _A.WARN,
    "lost": _A.RECONNECT,
}
_DEVICE_WRITES = _SILENT | {
    "started": _A.IGNORE,
    "tokens": _A.DISCARD,
    "finish": _A.RECORD_USAGE,
    "warning": _A.WARN,
    "lost": _A.IGNORE,
}

_UNCONFIRMED = _SILENT | {
    "started": _A.CONFIRM,
    "tokens": _A.REFUSE,
    "finish": _A.REFUSE,
    "warning": _A.WARN,
}

_BY_STATE: dict[DeviceState, dict[str, Action]] = {
    S.CONNECTING: _UNCONFIRMED | {"lost": _A.LOSE},
    S.RECONNECTING: _UNCONFIRMED | {"lost": _A.RECONNECT},
    S.CLOUD: _CLOUD_WRITES | {"refinement": _A.REFINE},
    S.CATCHING_UP: _CLOUD_WRITES,
    S.CLOUD_ONLY: _CLOUD_WRITES,
    S.DEVICE: _DEVICE_WRITES,
    S.DEVICE_ONLY: _DEVICE_WRITES,
    S.DONE: _DEVICE_WRITES | {"warning": _A.IGNORE},
    S.FAILED: _DEVICE_WRITES | {"warning": _A.IGNORE},
}

ACTIONS: dict[tuple[DeviceState, str], Action] = {
    (state, message): actions[message]
    for state, actions in _BY_STATE.items()
    for message in MESSAGES
}

OVER = frozenset({S.DONE, S.FAILED})


def require_transition(old: DeviceState, new: DeviceState) -> None:
    """Raise InternalError on a transition the table does not allow."""
    if new not in TRANSITIONS[old]:
        raise InternalError(f"illegal device state change {old.name} -> {new.name}")
