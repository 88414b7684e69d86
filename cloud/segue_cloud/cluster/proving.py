"""From a member to one that is offered requests: a probe, tried until it succeeds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio

from segue_cloud.cluster.members import Member, Membership
from segue_cloud.cluster.probe import ProbeFailed, probe
from segue_cloud.cluster.reasons import PROBE_FAILED
from segue_protocol.errors import Overloaded, TransferError, Unavailable
from segue_protocol.wire import private

log = logging.getLogger(__name__)

PROBES = 3
RETRY_S = 0.2


async def prove(membership: Membership, member: Member) -> None:
    """Return when `member` is ready, or when it has failed :data:`PROBES` probes.

    Without a partner there is nothing to probe with: the reason is noted, and
    the next change of the membership awaited.
    """
    while not member.ready:
        partner = _partner(membership, member)
        if partner is None:
            member.unready_reason = _why_alone(membership, member)
            await membership.changed()
            continue
        pair = (member, partner) if member.role == private.ROLE_PREFILL else (partner, member)
        try:
            await probe(*pair)
        except ProbeFailed as failed:
            if not isinstance(failed.cause, Overloaded):  # a full partner says nothing of us
                _count(membership, _culprit(failed, member), failed)
            await anyio.sleep(RETRY_S)
            continue
        for each in pair:
            each.ready, each.unready_reason = True, ""
        membership.notify()


def _partner(membership: Membership, member: Member) -> Member | None:
    """Who to probe with: a ready one, else (so that only one side probes) as a decode worker."""
    partners = membership.partners(member)
    ready = [partner for partner in partners if partner.ready]
    if ready:
        return min(ready, key=lambda partner: partner.open_streams)
    return partners[0] if partners and member.serves(private.ROLE_DECODE) else None


def _why_alone(membership: Membership, member: Member) -> str:
    others = [other for other in membership.members if other.role != member.role]
    in_group = [other for other in others if other.group == member.group]
    other_role = "decode" if member.role == private.ROLE_PREFILL else "prefill"
    if in_group and not membership.partners(member):
        if not any(other.transfers & member.transfers for other in in_group):
            return (
                f"KV of every {other_role} worker of group {member.group!r} moves by "
                f"{_named(in_group)}, that of this one by {_named([member])}; configure `transfer` "
                "alike"
            )
        if all(not other.can_feed(member) for other in in_group):
            return (
                f"every {other_role} worker of group {member.group!r} runs on another host, and KV "
                f"moves through shared memory; start a {other_role} worker on this host, or set "
                "`transfer` to tcp or nixl on all"
            )
        return f"every {other_role} worker it could work with is draining"
    return f"waits for a {other_role} worker in group {member.group!r}"


def _named(members: Sequence[Member]) -> str:
    return ", ".join(sorted(frozenset[str]().union(*(each.transfers for each in members))))


def _culprit(failed: ProbeFailed, newcomer: Member) -> Member:
    """Who failed; a transfer between a proven worker and a newcomer is the newcomer's fault."""
    if isinstance(failed.cause, TransferError) and failed.member.ready:
        return newcomer
    return failed.member


def _count(membership: Membership, culprit: Member, failed: ProbeFailed) -> None:
    log.warning("%s", failed)
    if culprit.ready:
        if isinstance(failed.cause, Unavailable):
            membership.remove(culprit, "UNREACHABLE")
        return
    culprit.failed_probes += 1
    culprit.unready_reason = str(failed)
    if culprit.failed_probes == PROBES:
        culprit.commands.put_nowait(Unavailable(f"{failed} ({PROBES} times)", reason=PROBE_FAILED))
