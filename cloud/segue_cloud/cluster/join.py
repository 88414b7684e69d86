"""How a worker becomes a member, seen from the gateway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable

import anyio

from segue_cloud.cluster.links import WorkerLink
from segue_cloud.cluster.members import Member, Membership
from segue_cloud.kv.layout import KvLayout
from segue_protocol.errors import InvalidRequest, Unsupported
from segue_protocol.identity import ModelIdentity
from segue_protocol.version import PROTOCOL_MAJOR
from segue_protocol.wire import private


class JoinHandler:
    """Serves `Join`: membership lasts as long as the stream and its heartbeats."""

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

    async def join(
        self, requests: AsyncIterator[private.JoinRequest]
    ) -> AsyncGenerator[private.JoinResponse, None]:
        """`register`, then heartbeats at least once a lease.

        Raises IdentityMismatch or TransferError naming the factor in which the
        worker differs from the cluster, Unsupported on another protocol.
        """
        first = await anext(requests, None)
        if first is None or not first.HasField("register"):
            raise InvalidRequest("a join stream begins with `register`")
        register = first.register
        if register.protocol.major != PROTOCOL_MAJOR:
            raise Unsupported(
                f"worker speaks protocol {register.protocol.major}, gateway {PROTOCOL_MAJOR}; "
                "run the same version on both",
                reason="PROTOCOL_VERSION",
            )
        link = self._open_link(register.address)
        member = Member(
            role=register.role,
            group=register.group or "default",
            pid=register.pid,
            incarnation=register.incarnation,
            identity=ModelIdentity.from_wire(register.identity),
            layout=KvLayout.from_wire(register.layout),
            max_context_tokens=register.max_context_tokens,
            link=link,
        )
        reason = "DISCONNECTED"
        try:
            self._membership.add(member)
            yield private.JoinResponse(lease_s=self._lease_s)
            while True:
                with anyio.fail_after(self._lease_s):
                    member.status = (await anext(requests)).heartbeat
        except StopAsyncIteration:
            reason = "LEFT"
        except TimeoutError:
            reason = "SILENT"
        finally:
            self._membership.remove(member, reason)
            await link.aclose()
