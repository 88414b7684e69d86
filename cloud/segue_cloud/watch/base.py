"""What the gateway tells those who watch it: metrics, logs, traces, answer records.

The membership and the sessions call, on the event loop; a watch only takes
note. It changes nothing, waits for nothing and raises nothing: an answer must
not fail because of who looks on. `appended` is called for every token, so it
has to be cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from segue_protocol.errors import SegueError
from segue_protocol.wire import private

if TYPE_CHECKING:
    from segue_cloud.cluster.members import Member
    from segue_cloud.gateway.session import Session
    from segue_cloud.watch.record import AnswerRecord


class Watch:
    """Sees everything, does nothing: the base of all watches. Times are of the gateway's clock."""

    def joined(self, member: Member) -> None:
        """A worker is a member now."""

    def left(self, member: Member, reason: str) -> None:
        """A worker is a member no more: LEFT after a drain or as the gateway stops, else
        LEASE_EXPIRED, PROBE_FAILED, TAKEN_OUT, DISCONNECTED or UNREACHABLE."""

    def offered(self, member: Member, role: private.Role, rejection: str | None) -> None:
        """A worker answered an offer in one role; `rejection` is its reason, None: it accepted."""

    def refused(self, error: SegueError) -> None:
        """A request was turned away before it had a session."""

    def appended(self, session: Session, tokens: int, gap_s: float | None) -> None:
        """Tokens came, together, `gap_s` after those before them (None: they are the first)."""

    def dropped(self, session: Session, tokens: int) -> None:
        """Tokens came from a writer that was shut out."""

    def transferred(self, session: Session, transfer_s: float, transfer_bytes: int) -> None:
        """A decode worker has pulled the KV of a request."""

    def transfer_failed(self, member: Member, reason: str) -> None:
        """A decode worker could not pull the KV of a request, or not the right one."""

    def ended(self, session: Session, answer: AnswerRecord) -> None:
        """The cloud's part of an answer is over, well or not."""


class Watches(Watch):
    """Several as one, told in order."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = tuple(watches)

    def joined(self, member: Member) -> None:
        for each in self._watches:
            each.joined(member)

    def left(self, member: Member, reason: str) -> None:
        for each in self._watches:
            each.left(member, reason)

    def offered(self, member: Member, role: private.Role, rejection: str | None) -> None:
        for each in self._watches:
            each.offered(member, role, rejection)

    def refused(self, error: SegueError) -> None:
        for each in self._watches:
            each.refused(error)

    def appended(self, session: Session, tokens: int, gap_s: float | None) -> None:
        for each in self._watches:
            each.appended(session, tokens, gap_s)

    def dropped(self, session: Session, tokens: int) -> None:
        for each in self._watches:
            each.dropped(session, tokens)

    def transferred(self, session: Session, transfer_s: float, transfer_bytes: int) -> None:
        for each in self._watches:
            each.transferred(session, transfer_s, transfer_bytes)

    def transfer_failed(self, member: Member, reason: str) -> None:
        for each in self._watches:
            each.transfer_failed(member, reason)

    def ended(self, session: Session, answer: AnswerRecord) -> None:
        for each in self._watches:
            each.ended(session, answer)
