"""On-demand forwarding (P/D-Serve 3.2): offer, be rejected, offer elsewhere.

There is no queue at a worker. The first in the group's line offers its request
to one member after the other; a member that is full rejects at once; after a
whole round of rejections it waits until something is freed and starts again,
until the deadline.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from google.protobuf.message import Message

from segue_cloud.cluster.fair_line import Place
from segue_cloud.cluster.members import Member, Membership, role_name
from segue_protocol.errors import Overloaded, ProtocolError, Unavailable
from segue_protocol.streams import Stream
from segue_protocol.wire import private

# A worker frees a slot a moment after its stream was closed here: the first in
# line asks again soon after it was woken, then ever more seldom, for offers that
# are rejected take processor time from those that run.
RETRY_S = 0.01
MAX_RETRY_S = 0.16
# An offer is answered at once. A worker that does not is frozen or drowning;
# its lease will take it out, meanwhile others are asked.
ANSWER_S = 2.0
# How many more streams than the least loaded a holder of the prefix may have.
PREFIX_SLACK = 1
NO_ANSWER = "NO_ANSWER"

S = TypeVar("S", bound=Message)
R = TypeVar("R", bound=Message)


def order(members: Sequence[Member], matched: Callable[[Member], int]) -> list[Member]:
    """Whom to ask, and in which order.

    The longest matching prefix first among members hardly busier than the
    least loaded, then the fewest open streams, then who accepted longest ago.
    A suspect costs a whole time budget, so it is asked only where nobody else is.
    """
    trusted = [member for member in members if not member.suspect] or list(members)
    least = min((member.open_streams for member in trusted), default=0)

    def rank(member: Member) -> tuple[int, int, int]:
        near = member.open_streams <= least + PREFIX_SLACK
        return (-matched(member) if near else 0, member.open_streams, member.accepted_turn)

    return sorted(trusted, key=rank)


def _suitable(
    membership: Membership, group: str, role: private.Role, partner: Member | None
) -> Sequence[Member]:
    members = membership.with_role(role, group)
    if partner is None:
        # A reservation where no prefill worker can reach it would only wait.
        return _paired(membership, members) or members
    feeding = [member for member in members if member.can_feed(partner)]
    decoders = membership.with_role(private.ROLE_DECODE, group)
    if not feeding and any(each is not partner for each in _paired(membership, decoders)):
        raise NobodyFeeds(partner)
    return feeding


def _paired(membership: Membership, members: Sequence[Member]) -> list[Member]:
    return [
        member
        for member in members
        if any(other.takes_requests for other in membership.partners(member))
    ]


class NobodyFeeds(Exception):
    """No KV can get to `partner` any more, which drains or has lost those that fed it.

    Others have partners: a reservation there is worth more than this one.
    """

    def __init__(self, partner: Member) -> None:
        super().__init__(partner.name)


@asynccontextmanager
async def offer(
    membership: Membership,
    group: str,
    role: private.Role,
    open_stream: Callable[[Member], Stream[S, R]],
    request: S,
    accepted: str,
    *,
    place: Place,
    may_be_absent: bool,
    matched: Callable[[Member], int] = lambda member: 0,
    partner: Member | None = None,
) -> AsyncIterator[tuple[Member, Stream[S, R], R]]:
    """Hold a stream to a member that has accepted `request`, with its answer.

    Runs until somebody in `group` accepts: put a deadline around it. With
    `may_be_absent` false, Unavailable is raised at once while the group lacks
    a role, this one or the other. A member that fails instead of rejecting is
    taken out. NobodyFeeds is raised when `partner` can be served by nobody, but
    somebody else can. `matched` says how much of a prompt a member holds already,
    `partner` with whom it must be able to move KV.
    """
    retry_s = RETRY_S
    while True:
        place.clear()
        absent = membership.absent_role(group)
        if absent is not None and not may_be_absent:
            raise nobody_there(absent, group)
        members = _suitable(membership, group, role, partner)
        for member in order(members, matched) if place.is_first else ():
            if member not in membership.members:
                continue  # it left while another was asked
            stream, held = open_stream(member), False
            member.open_streams += 1
            try:
                try:
                    with anyio.fail_after(ANSWER_S):
                        await stream.send(request)
                        answer = await stream.receive()
                except TimeoutError:
                    member.suspect = True
                    membership.watch.offered(member, role, NO_ANSWER)
                    continue
                except Overloaded as rejection:
                    member.suspect = False
                    membership.watch.offered(member, role, rejection.reason)
                    continue
                except Unavailable:
                    membership.remove(member, "UNREACHABLE")
                    continue
                if answer is None or answer.WhichOneof("message") != accepted:
                    raise ProtocolError(f"{member.name} answered an offer with {answer!r}")
                member.suspect = False
                member.accepted_turn = 1 + max(other.accepted_turn for other in membership.members)
                membership.watch.offered(member, role, None)
                held = True
                yield member, stream, answer
                return
            finally:
                member.open_streams -= 1
                try:
                    await stream.aclose()
                finally:
                    if held:  # its own rejection is no news to the first in line
                        membership.line(group).wake_first()
        if await place.woken(retry_s if place.is_first else None):
            retry_s = RETRY_S
        else:
            retry_s = min(2 * retry_s, MAX_RETRY_S)


def nobody_there(role: private.Role, group: str) -> Unavailable:
    """The error of a group without any worker of a role: no load, nobody to wait for."""
    return Unavailable(
        f"no {role_name(role)} worker is in the group {group!r}; start one or try again later",
        reason="NO_WORKER",
    )
