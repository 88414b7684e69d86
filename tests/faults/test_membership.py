"""Who is let in, who is offered requests, and why not: reference workers on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from segue_cloud.cluster.join import JoinHandler
from segue_cloud.cluster.links import GrpcLink
from segue_cloud.cluster.local_link import LocalLink
from segue_cloud.cluster.members import Membership
from segue_protocol.errors import (
    InvalidRequest,
    NotFound,
    SegueError,
    Unavailable,
)
from segue_protocol.version import protocol_version
from segue_protocol.wire import private
from tests.harness import Cloud, reference_cloud
from tests.virtual_clock import run_virtual

PREFILL, DECODE = private.ROLE_PREFILL, private.ROLE_DECODE
LEASE_S = 3.0
NOBODY = "127.0.0.1:1"


def _register(cloud: Cloud, role: private.Role, **changes: object) -> private.Register:
    engine = cloud.prefill.engine
    register = private.Register(
        role=role,
        address=f"here:{role}",
        pid=int(role),
        incarnation=bytes([role]) * 16,
        protocol=protocol_version(),
        identity=engine.identity.to_wire(),
        layout=engine.layout.to_wire(),
        max_context_tokens=512,
        group="default",
        host_id="one",
    )
    register.MergeFrom(private.Register(**changes))  # type: ignore[arg-type]
    return register


@dataclass
class Door:
    """A gateway's membership before anybody has joined."""

    cloud: Cloud
    membership: Membership
    handler: JoinHandler

    @asynccontextmanager
    async def join(
        self, role: private.Role, *, beats: bool = True, **changes: object
    ) -> AsyncIterator[AsyncGenerator[private.JoinResponse, None]]:
        """A worker that has been let in and sends heartbeats."""

        async def requests() -> AsyncIterator[private.JoinRequest]:
            yield private.JoinRequest(register=_register(self.cloud, role, **changes))
            while beats:
                yield private.JoinRequest(heartbeat=private.WorkerStatus())
                await asyncio.sleep(LEASE_S / 3)
            await asyncio.Event().wait()

        stream = self.handler.join(requests())
        try:
            assert (await anext(stream)).lease_s == LEASE_S
            yield stream
        finally:
            await stream.aclose()

    async def until(self, condition: Callable[[Membership], bool]) -> None:
        while not condition(self.membership):
            await self.membership.changed()

    def reasons(self) -> list[str]:
        return [member.unready_reason for member in self.membership.members]


@asynccontextmanager
async def _door(groups: tuple[str, ...] = ("default",)) -> AsyncIterator[Door]:
    async with reference_cloud() as cloud:
        links = {
            f"here:{PREFILL}": LocalLink(prefill=cloud.prefill),
            f"here:{DECODE}": LocalLink(decode=cloud.decode),
        }
        membership = Membership(groups)
        handler = JoinHandler(
            membership, lambda address: links.get(address) or GrpcLink(address), lease_s=LEASE_S
        )
        yield Door(cloud, membership, handler)
        assert not membership.members


def test_ready_after_one_real_request() -> None:
    async def main() -> None:
        async with _door() as door, door.join(PREFILL):
            await asyncio.sleep(1)
            assert door.reasons() == ["waits for a decode worker in group 'default'"]
            assert not door.membership.ready
            async with door.join(DECODE):
                await door.until(lambda membership: membership.ready)
                assert door.cloud.decode.batch.decoded_tokens == 2
                assert door.cloud.prefill.counters.prefilled_tokens == 4
                assert door.reasons() == ["", ""]
            assert not door.membership.ready

    run_virtual(main())


def test_a_failing_probe_keeps_the_worker_out_and_says_why() -> None:
    """It can reach the gateway, but the gateway cannot reach it. On real sockets."""

    async def main() -> None:
        async with (
            _door() as door,
            door.join(DECODE),
            door.join(PREFILL, address=NOBODY) as stream,
        ):
            with pytest.raises(Unavailable, match="failed at the prefill worker") as raised:
                await anext(stream)
            assert raised.value.reason == "PROBE_FAILED"
            assert NOBODY in raised.value.message
            assert not door.membership.ready
            assert all(door.reasons()), "who is left is not ready, and says why"

    asyncio.run(main())


def test_workers_of_two_hosts_are_not_paired() -> None:
    async def main() -> None:
        async with _door() as door, door.join(PREFILL), door.join(DECODE, host_id="two"):
            await asyncio.sleep(1)
            assert not door.membership.ready
            assert all("runs on another host" in reason for reason in door.reasons())
        assert door.cloud.decode.transfers == 0

    run_virtual(main())


def test_workers_of_two_hosts_are_paired_where_kv_travels() -> None:
    async def main() -> None:
        async with (
            _door() as door,
            door.join(PREFILL, transfers=["tcp"]),
            door.join(DECODE, host_id="two", transfers=["tcp"]),
        ):
            await asyncio.sleep(1)
            assert door.membership.ready

    run_virtual(main())


def test_workers_that_move_kv_in_different_ways_are_not_paired() -> None:
    async def main() -> None:
        async with (
            _door() as door,
            door.join(PREFILL, transfers=["nixl"]),
            door.join(DECODE, transfers=["tcp"]),
        ):
            await asyncio.sleep(1)
            assert not door.membership.ready
            assert all("configure `transfer` alike" in reason for reason in door.reasons())
        assert door.cloud.decode.transfers == 0

    run_virtual(main())


def test_workers_of_two_groups_are_not_paired() -> None:
    async def main() -> None:
        async with (
            _door(("default", "other")) as door,
            door.join(PREFILL),
            door.join(DECODE, group="other"),
        ):
            await asyncio.sleep(1)
            assert not door.membership.ready
            assert door.reasons()[1] == "waits for a prefill worker in group 'other'"

    run_virtual(main())


def test_a_successor_at_the_same_address_replaces_the_member_at_once() -> None:
    async def main() -> None:
        async with _door() as door, door.join(PREFILL), door.join(DECODE) as old:
            await door.until(lambda membership: membership.ready)
            async with door.join(DECODE, incarnation=b"n" * 16):
                with pytest.raises(Unavailable) as raised:
                    await anext(old)
                assert raised.value.reason == "TAKEN_OUT"
                await door.until(lambda membership: membership.ready)
                decoders = door.membership.with_role(DECODE, "default")
                assert [member.incarnation for member in decoders] == [b"n" * 16]

    run_virtual(main())


def test_silence_ends_the_membership() -> None:
    async def main() -> None:
        async with _door() as door, door.join(PREFILL, beats=False) as stream:
            with pytest.raises(Unavailable) as raised:
                await anext(stream)
            assert raised.value.reason == "LEASE_EXPIRED"

    run_virtual(main())


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"protocol": {"major": 99}}, "protocol 99"),
        ({"layout": {"head_dim": 7}}, "head_dim"),
        ({"layout": {"dtype": "float16"}}, "float16"),
        ({"identity": {"weights_digest": b"other"}}, "weights"),
        ({"identity": {"vocabulary_digest": b"other"}}, "vocabular"),
    ],
    ids=["version", "head-dim", "dtype", "weights", "vocabulary"],
)
def test_a_mismatch_is_refused_by_its_factor(changes: dict[str, object], factor: str) -> None:
    async def main() -> None:
        async with _door() as door, door.join(PREFILL):
            with pytest.raises(SegueError, match=factor) as raised:
                async with door.join(DECODE, **changes):
                    pass
            assert not raised.value.retryable, "a worker must not try again"
            assert len(door.membership.members) == 1

    run_virtual(main())


def test_control_names_one_worker() -> None:
    async def main() -> None:
        async with _door() as door, door.join(PREFILL) as stream, door.join(DECODE):
            await door.until(lambda membership: membership.ready)
            for worker, error in (("7", NotFound), ("", NotFound)):
                with pytest.raises(error):
                    await door.handler.control(_drain(worker))
            with pytest.raises(InvalidRequest, match="expected drain"):
                await door.handler.control(private.ControlRequest(worker="1"))
            told = await door.handler.control(_drain(bytes([PREFILL]).hex() * 4))
            assert told.worker == "prefill worker 1"
            assert (await anext(stream)).HasField("drain")
            assert not door.membership.ready, "it is offered nothing from now on"

    run_virtual(main())


def _drain(worker: str) -> private.ControlRequest:
    return private.ControlRequest(worker=worker, drain=private.Drain())
