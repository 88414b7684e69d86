"""How a worker becomes a member, is told what to do, and leaves; seen from the gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from segue_cloud.cluster.groups import DEFAULT_GROUP
from segue_cloud.cluster.links import WorkerLink
from segue_cloud.cluster.members import Member, Membership, role_name
from segue_cloud.cluster.proving import prove
from segue_cloud.gateway.silence import unless_silent
from segue_cloud.kv.layout import KvLayout
from segue_protocol.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    SegueError,
    Unavailable,
    Unsupported,
)
from segue_protocol.identity import ModelIdentity
from segue_protocol.version import PROTOCOL_MAJOR
from segue_protocol.wire import private

log = logging.getLogger(__name__)

# For what a worker sent before it left and the gateway has yet to read.
LAST_WORDS_S = 2.0


class JoinHandler:
    """Serves `Join` and `Control`: membership lasts as long as the stream and its heartbeats."""

    def __init__(
        self,
        membership: Membership,
        open_link: Callable[[str], WorkerLink],
        *,
        lease_s: float = 3.0,
    ) -> None:
        self._membership = membership
        self._open_link = open_link
        self._lease_s = lease_s
        self._closing = False

    def close(self) -> None:
        """The gateway goes: streams that end from now on are no loss."""
        self._closing = True

    async def join(
        self, requests: AsyncIterator[private.JoinRequest]
    ) -> AsyncGenerator[private.JoinResponse, None]:
        """`register`, then heartbeats at least once a lease; commands come back.

        Raises IdentityMismatch naming the factor in which the worker differs
        from the cluster, InvalidRequest for an unknown group, Unsupported on
        another protocol; later Unavailable: PROBE_FAILED, LEASE_EXPIRED, or
        TAKEN_OUT after an error or by a successor.
        """
        first = await anext(requests, None)
        if first is None or not first.HasField("register"):
            raise InvalidRequest("a join stream begins with `register`")
        member = self._member(first.register)
        reason = "DISCONNECTED"
        try:
            self._membership.add(member)
            tasks = [
                asyncio.create_task(self._listen(requests, member)),
                asyncio.create_task(self._prove(member)),
            ]
            try:
                yield private.JoinResponse(lease_s=self._lease_s)
                while (command := await member.commands.get()) is not None:
                    if isinstance(command, SegueError):
                        reason = command.reason
                        raise command
                    yield command
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        except SegueError as error:
            log.warning("%s is no member: %s", member.name, error.message)
            raise
        finally:
            # A killed worker's stream ends no differently; one that leaves has said so.
            left = reason == "DISCONNECTED" and member.draining
            self._membership.remove(member, "LEFT" if self._closing or left else reason)
            # A frozen worker's streams would stay open, and their requests wait.
            await member.link.aclose(LAST_WORDS_S if left else 0.0)

    async def control(self, request: private.ControlRequest) -> private.ControlResponse:
        """Pass a command on to a member, which is offered nothing from now on.

        Raises NotFound or InvalidRequest when the worker or the command is not clear.
        """
        kind = request.WhichOneof("command")
        if kind is None:
            raise InvalidRequest("the command is missing, expected drain or switch_role")
        member = self._membership.find(request.worker)
        if kind == "switch_role":
            self.switch(member, request.switch_role.role)
        else:
            self._tell(member, private.JoinResponse(drain=private.Drain()))
        return private.ControlResponse(worker=member.name, incarnation=member.incarnation)

    def switch(self, member: Member, role: private.Role) -> None:
        """Let a member drain and come back in another role.

        Raises InvalidRequest for a role it has already, or that is none, for a
        worker that shares its pages with another phase, and for the last of its
        group in its role: nobody could be served meanwhile.
        """
        if member.pool:
            raise InvalidRequest(
                f"{member.name} shares one page pool with the other phase and stays what it is; "
                "only prefill and decode workers with pools of their own switch roles"
            )
        if role not in (private.ROLE_PREFILL, private.ROLE_DECODE) or role == member.role:
            raise InvalidRequest(
                f"{member.name} was told to become a {role_name(role)} worker; expected the other "
                "one of prefill and decode"
            )
        if self._membership.with_role(member.role, member.group) in ([], [member]):
            raise InvalidRequest(
                f"{member.name} is the last {member.role_name} worker of the group "
                f"{member.group!r}; start another one first"
            )
        self._tell(member, private.JoinResponse(switch_role=private.SwitchRole(role=role)))

    def _tell(self, member: Member, command: private.JoinResponse) -> None:
        member.draining = True
        self._membership.notify()
        command.lease_s = self._lease_s
        member.commands.put_nowait(command)

    def _member(self, register: private.Register) -> Member:
        if register.protocol.major != PROTOCOL_MAJOR:
            raise Unsupported(
                f"worker speaks protocol {register.protocol.major}, gateway {PROTOCOL_MAJOR}; "
                "run the same version on both",
                reason="PROTOCOL_VERSION",
            )
        return Member(
            role=register.role,
            group=register.group or DEFAULT_GROUP,
            address=register.address,
            host_id=register.host_id,
            transfers=frozenset(register.transfers or ["shm"]),
            pool=register.pool,
            pid=register.pid,
            incarnation=register.incarnation,
            identity=ModelIdentity.from_wire(register.identity),
            layout=KvLayout.from_wire(register.layout),
            max_context_tokens=register.max_context_tokens,
            link=self._open_link(register.address),
            ready=False,
            unready_reason="not probed yet",
        )

    async def _prove(self, member: Member) -> None:
        """Make it ready; an unforeseen error ends the membership, for it would never be."""
        try:
            await prove(self._membership, member)
        except Exception as error:
            log.exception("probing %s", member.name)
            member.commands.put_nowait(InternalError(f"the probe broke: {error!r}"))

    async def _listen(self, requests: AsyncIterator[private.JoinRequest], member: Member) -> None:
        """Take heartbeats in; end the stream when they stop."""
        end: SegueError | None = Unavailable("the join stream broke", reason="DISCONNECTED")
        try:
            with unless_silent(member.name, self._lease_s) as silence:
                async for request in requests:
                    silence.heard()
                    member.status = request.heartbeat
                    member.suspect = False
                    if member.status.draining and not member.draining:
                        member.draining = True
                        self._membership.notify()
            end = None
        except DeadlineExceeded:
            end = Unavailable(
                f"no heartbeat within the lease of {self._lease_s} s; join again",
                reason="LEASE_EXPIRED",
            )
        finally:
            member.commands.put_nowait(end)
