"""Who belongs to the cluster now.

A worker is a member from its registration until its join stream ends, its
heartbeats stop, or an error shows it to be gone. Identity and KV layout are
compared at the door: a difference is refused and named there, not met later.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from segue_cloud.cluster.links import WorkerLink
from segue_cloud.kv.layout import KvLayout
from segue_cloud.watch.base import Watch
from segue_protocol.errors import IdentityMismatch
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
    open_streams: int = 0
    status: private.WorkerStatus = field(default_factory=private.WorkerStatus)

    @property
    def role_name(self) -> str:
        return private.Role.Name(self.role).removeprefix("ROLE_").lower()

    @property
    def name(self) -> str:
        return f"{self.role_name} worker {self.pid}"


class Membership:
    """The map of members. Changes wake everybody who waits for one; `watch` is told of each."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch or Watch()
        self._members: list[Member] = []
        self._changed = asyncio.Event()

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._members)

    def with_role(self, role: private.Role) -> list[Member]:
        return [member for member in self._members if member.role == role]

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
        """Take a worker in. Raises IdentityMismatch or TransferError naming the factor."""
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
        self.watch.joined(member)
        self._notify()

    def remove(self, member: Member, reason: str = "LEFT") -> None:
        """Take a worker out; `reason` as in :meth:`Watch.left`.

        Idempotent; open streams end on their own.
        """
        if member in self._members:
            self._members.remove(member)
            self.watch.left(member, reason)
            self._notify()

    async def changed(self) -> None:
        """Wait for the next change."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
