"""The two workers of one attempt: pages reserved, then a prefill worker that can feed them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

from segue_cloud.cluster.fair_line import Place
from segue_cloud.cluster.forwarding import NobodyFeeds, offer
from segue_cloud.cluster.links import DecodeStream, PrefillStream
from segue_cloud.cluster.members import Member, Membership
from segue_cloud.gateway.assignment import Assignment
from segue_protocol.wire import private


async def forward(
    membership: Membership,
    assignment: Assignment,
    credit: int,
    prefix_keys: Sequence[bytes],
    place: Place,
    held: AsyncExitStack,
    held_prefill: AsyncExitStack,
    *,
    may_be_absent: bool,
) -> tuple[Member, DecodeStream, Member, PrefillStream]:
    """The decode and the prefill worker, each with a stream that `held` and `held_prefill` hold.

    Runs until both have accepted, first in the line from `place`: put a deadline
    around it. Of prefill workers a holder of `prefix_keys` comes first. A reservation
    that nobody can feed any more is given up for another.
    """
    group = assignment.scope.group
    while True:
        decoder, decode, accepted = await held.enter_async_context(
            offer(
                membership,
                group,
                private.ROLE_DECODE,
                lambda member: member.link.decode(),
                assignment.reserve(credit),
                "reserved",
                place=place,
                may_be_absent=may_be_absent,
            )
        )
        with suppress(NobodyFeeds):
            prefiller, prefill, _ = await held_prefill.enter_async_context(
                offer(
                    membership,
                    group,
                    private.ROLE_PREFILL,
                    lambda member: member.link.prefill(),
                    assignment.job(accepted.reserved),
                    "accepted",
                    place=place,
                    may_be_absent=may_be_absent,
                    partner=decoder,
                    matched=lambda member: member.prefixes.match(prefix_keys),
                )
            )
            return decoder, decode, prefiller, prefill
        await held.aclose()
