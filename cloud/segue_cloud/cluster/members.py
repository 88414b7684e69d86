"""Who belongs to the cluster now.

A worker is a member from its registration until its join stream ends, its
heartbeats stop, or an error shows it to be gone; it is offered requests once a
probe has gone through it, and until it drains. Identity and KV layout are
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
from segue_cloud.watch.base import Watch
from segue_protocol.errors import (
    IdentityMismatch,
    InvalidRequest,
    NotFound,
    SegueError,
    TransferError,
    Unavailable,
)
from segue_protocol.identity import ModelIdentity, require_shared_log
from segue_protocol.wire import private


def role_name(role: private.Role) -> str:
    """As in settings and messages: "prefill", "decode"."""
    return private.Role.Name(role).removeprefix("ROLE_").lower()


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
    address: str = ""
    # Processes with equal ones can map each other's memory.
    host_id: str = ""
    # How its KV can move.
    transfers: frozenset[str] = frozenset({"shm"})
    # Equal for those that share one page pool; empty where KV is moved.
    pool: bytes = b""
    ready: bool = True
    # Why it is not ready.
    unready_reason: str = ""
    failed_probes: int = 0
    draining: bool = False
    open_streams: int = 0
    # It let an offer's time run out and has given no sign of life since.
    suspect: bool = False
    # Larger than that of every member that accepted an offer before it.
    accepted_turn: int = 0
    prefixes: KnownPrefixes = field(default_factory=KnownPrefixes)
    status: private.WorkerStatus = field(default_factory=private.WorkerStatus)
    # What its join stream says next; an error or None ends the stream.
    commands: asyncio.Queue[private.JoinResponse | SegueError | None] = field(
        default_factory=asyncio.Queue
    )

    @property
    def takes_requests(self) -> bool:
        return self.ready and not self.draining

    def serves(self, role: private.Role) -> bool:
        """Whether it does the work of prefill or decode."""
        return self.role in (role, private.ROLE_AGGREGATED)

    def can_feed(self, other: Member) -> bool:
        """Whether KV gets from one to the other, in either direction."""
        if (self.group, self.pool) != (other.group, other.pool):
            return False
        common = self.transfers & other.transfers
        reached_from_afar = bool(common - {"shm"}) and not self.pool
        return reached_from_afar or (bool(common) and self.host_id == other.host_id)

    @property
    def role_name(self) -> str:
        return role_name(self.role)

    @property
    def name(self) -> str:
        return f"{self.role_name} worker {self.pid}"


class Membership:
    """The map of members by group. Changes wake everybody who waits for one.

    `watch` is told of each.
    """

    def __init__(
        self, groups: Sequence[str] = (DEFAULT_GROUP,), *, watch: Watch | None = None
    ) -> None:
        self.watch = watch or Watch()
        self._lines = {group: FairLine() for group in groups}
        self._members: list[Member] = []
        self._changed = asyncio.Event()

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._members)

    def with_role(self, role: private.Role, group: str) -> list[Member]:
        """Who takes requests in one role of one group; groups never help one another."""
        return [
            each
            for each in self._members
            if each.serves(role) and each.group == group and each.takes_requests
        ]

    def absent_role(self, group: str) -> private.Role | None:
        """A role that nobody has in a group, None when there is somebody for each."""
        for role in (private.ROLE_PREFILL, private.ROLE_DECODE):
            if not self.with_role(role, group):
                return role
        return None

    def line(self, group: str) -> FairLine:
        """Who waits for the workers of a group."""
        return self._lines[group]

    def partners(self, member: Member) -> list[Member]:
        """Who KV can move to or from, ready or not; an aggregated worker is its own partner."""
        if member.role == private.ROLE_AGGREGATED:
            return [] if member.draining else [member]
        return [
            other
            for other in self._members
            if other.role != member.role and other.can_feed(member) and not other.draining
        ]

    def find(self, worker: str) -> Member:
        """The member with this pid, or whose incarnation begins with these hex digits.

        Raises NotFound, or InvalidRequest when more than one answers to it.
        """
        found = [member for member in self._members if worker == str(member.pid)] or [
            member
            for member in self._members
            if worker and member.incarnation.hex().startswith(worker)
        ]
        if not found:
            known = ", ".join(
                f"{each.name} ({each.incarnation.hex()[:8]})" for each in self._members
            )
            raise NotFound(f"no worker {worker!r}; members are {known or 'none'}")
        if len(found) > 1:
            raise InvalidRequest(
                f"{worker!r} means {' or '.join(each.incarnation.hex() for each in found)}; "
                "give more digits of the incarnation"
            )
        return found[0]

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

        Raises InvalidRequest for a group nobody configured, IdentityMismatch
        naming the factor in which it differs from the others. A member at the
        same address is replaced: its process is no more, or has lost its
        connection and joins again.
        """
        if member.group not in self._lines:
            raise InvalidRequest(
                f"{member.name} wants to join the group {member.group!r}; this cluster has "
                f"{', '.join(self._lines)}: start it with one of them as --group",
                reason="UNKNOWN_GROUP",
            )
        if member.address:
            for older in self._members:
                if older.address == member.address:
                    self.remove(older, "TAKEN_OUT")
                    break
        if self._members:
            first = self._members[0]
            require_shared_log(first.identity, member.identity)
            if first.identity.weights_digest != member.identity.weights_digest:
                raise IdentityMismatch(
                    f"{member.name} runs other weights than {first.name}; "
                    "all workers of a cluster must load the same model",
                    reason="WEIGHTS_MISMATCH",
                )
            try:
                first.layout.require_equal(member.layout)
            except TransferError as error:  # retried, a transfer may succeed; this never will
                raise IdentityMismatch(error.message, reason=error.reason) from error
        self._members.append(member)
        self.watch.joined(member)
        self.notify()

    def remove(self, member: Member, reason: str = "LEFT") -> None:
        """Take a worker out; `reason` as in :meth:`Watch.left`.

        Idempotent. If it lives, it is told and may join again.
        """
        if member in self._members:
            self._members.remove(member)
            gone = Unavailable(f"{member.name} was taken out; join again", reason="TAKEN_OUT")
            member.commands.put_nowait(gone)
            self.watch.left(member, reason)
            self.notify()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    def notify(self) -> None:
        """Wake everybody who waits for a change of the membership or of a member."""
        for line in self._lines.values():
            line.wake_all()
        self._changed.set()
        self._changed = asyncio.Event()
