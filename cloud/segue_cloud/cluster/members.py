"""Who belongs to the cluster now.

A worker is a member from its registration until its join stream ends, its
heartbeats stop, or an error shows it to be gone; it is offered requests once a
probe has gone through it, and until it drains. Identity and KV layout are
compared at the door: a difference is refused and named there, not met later.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from segue_cloud.cluster.links import WorkerLink
from segue_cloud.kv.layout import KvLayout
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
    group: str = "default"
    address: str = ""
    # Processes with equal ones can map each other's memory.
    host_id: str = ""
    ready: bool = True
    # Why it is not ready.
    unready_reason: str = ""
    failed_probes: int = 0
    draining: bool = False
    open_streams: int = 0
    status: private.WorkerStatus = field(default_factory=private.WorkerStatus)
    # What its join stream says next; an error or None ends the stream.
    commands: asyncio.Queue[private.JoinResponse | SegueError | None] = field(
        default_factory=asyncio.Queue
    )

    @property
    def takes_requests(self) -> bool:
        return self.ready and not self.draining

    def can_feed(self, other: Member) -> bool:
        """Whether KV can move between the two, in either direction."""
        return self.group == other.group and self.host_id == other.host_id

    @property
    def name(self) -> str:
        return f"{private.Role.Name(self.role).removeprefix('ROLE_').lower()} worker {self.pid}"


class Membership:
    """The map of members. Changes wake everybody who waits for one."""

    def __init__(self) -> None:
        self._members: list[Member] = []
        self._changed = asyncio.Event()

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._members)

    def with_role(self, role: private.Role) -> list[Member]:
        """Who takes requests in this role now."""
        return [member for member in self._members if member.role == role and member.takes_requests]

    def partners(self, member: Member) -> list[Member]:
        """Every member of the other role that KV can move to or from, ready or not."""
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
        return bool(self.with_role(private.ROLE_PREFILL) and self.with_role(private.ROLE_DECODE))

    @property
    def identity(self) -> ModelIdentity | None:
        """What the cluster runs; None before the first worker has joined."""
        return self._members[0].identity if self._members else None

    @property
    def max_context_tokens(self) -> int:
        return min((member.max_context_tokens for member in self._members), default=0)

    def add(self, member: Member) -> None:
        """Take a worker in. Raises IdentityMismatch naming the factor.

        A member at the same address is replaced: its process is no more, or has
        lost its connection and joins again.
        """
        if member.address:
            for older in self._members:
                if older.address == member.address:
                    self.remove(older)
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
        self.notify()

    def remove(self, member: Member) -> None:
        """Take a worker out. Idempotent. If it lives, it is told and may join again."""
        if member in self._members:
            self._members.remove(member)
            gone = Unavailable(f"{member.name} was taken out; join again", reason="TAKEN_OUT")
            member.commands.put_nowait(gone)
            self.notify()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    def notify(self) -> None:
        """Wake everybody who waits for a change of the membership or of a member."""
        self._changed.set()
        self._changed = asyncio.Event()
