"""Who belongs to the cluster now.

A worker is a member from its registration until its join stream ends, its
heartbeats stop, or an error shows it to be gone. Identity and KV layout are
compared at the door: a difference is refused and named there, not met later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from segue_cloud.cluster.fair_line import FairLine
from segue_cloud.cluster.groups import DEFAULT_GROUP
from segue_cloud.cluster.links import WorkerLink
from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.prefixes import KnownPrefixes
from segue_protocol.errors import IdentityMismatch, InvalidRequest
from segue_protocol.identity import ModelIdentity, require_shared_log
from segue_protocol.wire import private


@dataclass(eq=False, slots=True)
class Member:
    """One worker as the gateway sees it."""

    role: private.Role
    pid: int
    incarnation: bytes
    identity: ModelIdentity
    layout: KvLayout
    max_context_tokens: int
    link: WorkerLink
    group: str = DEFAULT_GROUP
    open_streams: int = 0
    # It let an offer's time run out and has given no sign of life since.
    suspect: bool = False
    # Larger than that of every member that accepted an offer before it.
    accepted_turn: int = 0
    prefixes: KnownPrefixes = field(default_factory=KnownPrefixes)
    status: private.WorkerStatus = field(default_factory=private.WorkerStatus)

    @property
    def name(self) -> str:
        return f"{private.Role.Name(self.role).removeprefix('ROLE_').lower()} worker {self.pid}"


class Membership:
    """The map of members by group. Changes wake everybody who waits for one."""

    def __init__(self, groups: Sequence[str] = (DEFAULT_GROUP,)) -> None:
        self._lines = {group: FairLine() for group in groups}
        self._members: list[Member] = []
        self._changed = asyncio.Event()

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._members)

    def with_role(self, role: private.Role, group: str) -> list[Member]:
        """The members of one role in one group; groups never help one another."""
        return [each for each in self._members if each.role == role and each.group == group]

    def absent_role(self, group: str) -> private.Role | None:
        """A role that nobody has in a group, None when there is somebody for each."""
        for role in (private.ROLE_PREFILL, private.ROLE_DECODE):
            if not self.with_role(role, group):
                return role
        return None

    def line(self, group: str) -> FairLine:
        """Who waits for the workers of a group."""
        return self._lines[group]

    @property
    def ready(self) -> bool:
        """Whether every configured group can serve."""
        return all(self.absent_role(group) is None for group in self._lines)

    @property
    def identity(self) -> ModelIdentity | None:
        """What the cluster runs; None before the first worker has joined."""
        return self._members[0].identity if self._members else None

    @property
    def max_context_tokens(self) -> int:
        return min((member.max_context_tokens for member in self._members), default=0)

    def add(self, member: Member) -> None:
        """Take a worker in.

        Raises InvalidRequest for a group nobody configured, IdentityMismatch or
        TransferError naming the factor in which it differs from the others.
        """
        if member.group not in self._lines:
            raise InvalidRequest(
                f"{member.name} wants to join the group {member.group!r}; this cluster has "
                f"{', '.join(self._lines)}: start it with one of them as --group",
                reason="UNKNOWN_GROUP",
            )
        if self._members:
            first = self._members[0]
            require_shared_log(first.identity, member.identity)
            if first.identity.weights_digest != member.identity.weights_digest:
                raise IdentityMismatch(
                    f"{member.name} runs other weights than {first.name}; "
                    "all workers of a cluster must load the same model",
                    reason="WEIGHTS_MISMATCH",
                )
            first.layout.require_equal(member.layout)
        self._members.append(member)
        self._notify()

    def remove(self, member: Member) -> None:
        """Take a worker out. Idempotent; open streams end on their own."""
        if member in self._members:
            self._members.remove(member)
            self._notify()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    def _notify(self) -> None:
        for line in self._lines.values():
            line.wake_all()
        self._changed.set()
        self._changed = asyncio.Event()
