"""Every worker's counts, asked for now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from segue_cloud.cluster.members import Member
from segue_protocol.errors import SegueError
from segue_protocol.wire import private


async def survey(members: Sequence[Member]) -> list[private.WorkerStatus]:
    """The status of each member that answers, and what the gateway thinks of it."""
    answers = await asyncio.gather(
        *(member.link.status() for member in members), return_exceptions=True
    )
    found = []
    for member, answer in zip(members, answers, strict=True):
        if isinstance(answer, private.WorkerStatus):
            answer.ready, answer.unready_reason = member.ready, member.unready_reason
            found.append(answer)
        elif not isinstance(answer, (SegueError, asyncio.CancelledError)):
            raise answer  # a call is cancelled, too, when its worker is taken out meanwhile
    return found
