"""The states of one request in the cloud, and what every message does in each.

``TRANSITIONS`` says which state may follow which; ``ACTIONS`` says what each
message of the device does in each state. Everything not listed is an error.
"""

from __future__ import annotations

from enum import Enum

from segue_protocol.errors import InternalError
from segue_protocol.wire import public


class RequestState(Enum):
    """Where one request is; values are those of the wire."""

    WAITING = public.REQUEST_STATE_WAITING
    PREFILLING = public.REQUEST_STATE_PREFILLING
    KV_READY = public.REQUEST_STATE_KV_READY
    TRANSFERRING = public.REQUEST_STATE_TRANSFERRING
    DECODING = public.REQUEST_STATE_DECODING
    PARKED = public.REQUEST_STATE_PARKED
    FINISHED = public.REQUEST_STATE_FINISHED


S = RequestState

# Back to WAITING: a worker was lost or the pages were evicted; the request is
# prefilled again under a new epoch. To FINISHED from anywhere: cancel, takeover.
TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    S.WAITING: frozenset({S.PREFILLING, S.FINISHED}),
    S.PREFILLING: frozenset({S.KV_READY, S.WAITING, S.FINISHED}),
    S.KV_READY: frozenset({S.TRANSFERRING, S.WAITING, S.FINISHED}),
    S.TRANSFERRING: frozenset({S.DECODING, S.WAITING, S.FINISHED}),
    S.DECODING: frozenset({S.PARKED, S.WAITING, S.FINISHED}),
    S.PARKED: frozenset({S.DECODING, S.WAITING, S.FINISHED}),
    S.FINISHED: frozenset(),
}


class Action(Enum):
    """What the session does with a message."""

    RAISE_CREDIT = "raise the credit"
    RECORD = "record the device's progress"
    TAKE_OVER = "truncate the log and end TAKEN_OVER"
    ACKNOWLEDGE = "too late to matter, no error"
    CANCEL = "end CANCELLED"
    REFUSE = "protocol error"


MESSAGES = ("start", "resume", "credit", "progress", "takeover", "cancel")

_ALIVE = {
    "start": Action.REFUSE,
    "resume": Action.REFUSE,
    "credit": Action.RAISE_CREDIT,
    "progress": Action.RECORD,
    "takeover": Action.TAKE_OVER,
    "cancel": Action.CANCEL,
}
_FINISHED = {
    "start": Action.REFUSE,
    "resume": Action.REFUSE,
    "credit": Action.ACKNOWLEDGE,
    "progress": Action.ACKNOWLEDGE,
    "takeover": Action.ACKNOWLEDGE,
    "cancel": Action.ACKNOWLEDGE,
}

ACTIONS: dict[tuple[RequestState, str], Action] = {
    (state, message): (_FINISHED if state is S.FINISHED else _ALIVE)[message]
    for state in RequestState
    for message in MESSAGES
}


def require_transition(old: RequestState, new: RequestState) -> None:
    """Raise InternalError on a transition the table does not allow."""
    if new not in TRANSITIONS[old]:
        raise InternalError(f"illegal request state change {old.name} -> {new.name}")
