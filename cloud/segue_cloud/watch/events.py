"""What a gateway's log says: workers that come and go, answers that end, requests refused."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from segue_cloud.watch.base import Watch
from segue_cloud.watch.logs import event
from segue_cloud.watch.record import ERROR
from segue_protocol.errors import SegueError

if TYPE_CHECKING:
    from segue_cloud.cluster.members import Member
    from segue_cloud.gateway.session import Session
    from segue_cloud.watch.record import AnswerRecord

log = logging.getLogger(__name__)

# Enough of an incarnation to tell two apart.
INCARNATION_DIGITS = 8


class EventLog(Watch):
    """Every event but the single tokens, the transfers and the offers, which metrics count."""

    def joined(self, member: Member) -> None:
        event(log, logging.INFO, "worker joined", **_worker(member))

    def left(self, member: Member, reason: str) -> None:
        if reason == "LEFT":
            event(log, logging.INFO, "worker left", **_worker(member))
        else:
            event(log, logging.WARNING, "worker lost", **_worker(member), reason=reason)

    def refused(self, error: SegueError) -> None:
        event(log, logging.INFO, "request refused", code=error.code, reason=error.reason)

    def ended(self, session: Session, answer: AnswerRecord) -> None:
        level = logging.WARNING if answer.reason == ERROR else logging.INFO
        event(log, level, "answer finished", **dataclasses.asdict(answer))


def _worker(member: Member) -> dict[str, Any]:
    return {
        "role": member.role_name,
        "group": member.group,
        "worker_pid": member.pid,
        "incarnation": member.incarnation.hex()[:INCARNATION_DIGITS],
    }
