"""On-demand forwarding (P/D-Serve 3.2): offer, be rejected, offer elsewhere.

There is no queue at a worker. The gateway offers a request to the least loaded
member first; a member that is full rejects at once; after a whole round of
rejections the gateway waits a little and starts again, until the deadline.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from google.protobuf.message import Message

from segue_cloud.cluster.members import Member, Membership
from segue_protocol.errors import Overloaded, ProtocolError, Unavailable
from segue_protocol.streams import Stream
from segue_protocol.wire import private

RETRY_S = 0.01
# An offer is answered at once. A worker that does not is frozen or drowning;
# its lease will take it out, meanwhile others are asked.
ANSWER_S = 2.0
NO_ANSWER = "NO_ANSWER"

S = TypeVar("S", bound=Message)
R = TypeVar("R", bound=Message)


def by_load(members: Sequence[Member]) -> list[Member]:
    """Least open streams first; ties keep the order of joining."""
    return sorted(members, key=lambda member: member.open_streams)


@asynccontextmanager
async def offer(
    membership: Membership,
    role: private.Role,
    open_stream: Callable[[Member], Stream[S, R]],
    request: S,
    accepted: str,
    *,
    may_be_absent: bool,
) -> AsyncIterator[tuple[Member, Stream[S, R]]]:
    """Hold a stream to a member that has accepted `request`.

    Runs until somebody accepts: put a deadline around it. With
    `may_be_absent` false, Unavailable is raised at once while no member has
    the role. A member that fails instead of rejecting is taken out.
    """
    while True:
        candidates = by_load(membership.with_role(role))
        if not candidates and not may_be_absent:
            raise Unavailable(
                f"no {private.Role.Name(role).removeprefix('ROLE_').lower()} worker has joined; "
                "start one or try again later",
                reason="NO_WORKER",
            )
        for member in candidates:
            stream = open_stream(member)
            member.open_streams += 1
            try:
                try:
                    with anyio.fail_after(ANSWER_S):
                        await stream.send(request)
                        answer = await stream.receive()
                except Overloaded as rejection:
                    membership.watch.offered(member, rejection.reason)
                    continue
                except TimeoutError:
                    membership.watch.offered(member, NO_ANSWER)
                    continue
                except Unavailable:
                    membership.remove(member, "UNREACHABLE")
                    continue
                if answer is None or answer.WhichOneof("message") != accepted:
                    raise ProtocolError(f"{member.name} answered an offer with {answer!r}")
                membership.watch.offered(member, None)
                yield member, stream
                return
            finally:
                member.open_streams -= 1
                await stream.aclose()
        await anyio.sleep(RETRY_S)
