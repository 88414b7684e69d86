"""Which worker is switched, and when nothing is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from segue_cloud.cluster.balancer import Balancer
from segue_cloud.cluster.join import JoinHandler
from segue_cloud.cluster.links import WorkerLink
from segue_cloud.cluster.measures import GroupMeasures
from segue_cloud.cluster.members import Member, Membership
from segue_cloud.cluster.ratio import Damping
from segue_cloud.engine.reference import ReferenceEngine
from segue_protocol.errors import InvalidRequest
from segue_protocol.wire import private

ENGINE = ReferenceEngine()
QUICK = Damping(hold_s=1.0, rest_s=5.0)


def _member(role: private.Role, pid: int, open_streams: int = 0) -> Member:
    return Member(
        role=role,
        pid=pid,
        incarnation=bytes([pid]) * 16,
        identity=ENGINE.identity,
        layout=ENGINE.layout,
        max_context_tokens=512,
        link=cast(WorkerLink, None),
        group="chat",
        open_streams=open_streams,
        status=private.WorkerStatus(role=role, slots=8),
    )


def _group(decode: int = 3) -> tuple[Balancer, list[tuple[int, private.Role]]]:
    membership, measures = Membership(["chat"]), GroupMeasures()
    membership.add(_member(private.ROLE_PREFILL, 1))
    for place in range(decode):
        membership.add(_member(private.ROLE_DECODE, 2 + place, open_streams=5 - place))
    told: list[tuple[int, private.Role]] = []
    balancer = Balancer(
        membership,
        {"chat": measures},
        lambda member, role: told.append((member.pid, role)),
        automatic=["chat"],
        damping=QUICK,
    )
    return balancer, told


def _press(balancer: Balancer, now_s: float, **took: Any) -> None:
    balancer.measures["chat"].offered(now_s, rejected=True)
    balancer.measures["chat"].answered(
        now_s, **{"prefill_s": 1.0, "decode_s": 1.0, "cloud_tokens": 10, **took}
    )


def test_the_idlest_worker_of_the_other_role_is_told() -> None:
    balancer, told = _group()
    for now_s in range(4):
        _press(balancer, float(now_s))
        balancer.step(float(now_s))
    assert told == [(4, private.ROLE_PREFILL)]
    assert balancer.status("chat", 3.0).requests_per_s > 0, "measured anew"


def test_nothing_is_switched_while_a_worker_drains() -> None:
    balancer, told = _group()
    balancer.membership.members[2].draining = True
    for now_s in range(20):
        _press(balancer, float(now_s))
        balancer.step(float(now_s))
    assert told == []


def test_a_group_that_does_not_ask_for_it_is_left_alone() -> None:
    balancer, told = _group()
    balancer.automatic = []
    for now_s in range(20):
        _press(balancer, float(now_s))
        balancer.step(float(now_s))
    assert told == []
    status = balancer.status("chat", 20.0)
    assert (status.prefill_workers, status.decode_workers) == (1, 3)
    assert status.balanced_prefill_workers > 3
    assert status.rejected_share == 1.0


def test_a_worker_that_shares_its_pool_keeps_its_role() -> None:
    balancer, told = _group()
    member = balancer.membership.members[1]
    member.pool = bytes(16)
    for now_s in range(20):
        _press(balancer, float(now_s))
        balancer.step(float(now_s))
    assert told == []
    assert balancer.status("chat", 20.0).balanced_prefill_workers == 0.0
    join = JoinHandler(balancer.membership, lambda address: cast(WorkerLink, None))
    with pytest.raises(InvalidRequest, match="shares one page pool"):
        join.switch(member, private.ROLE_PREFILL)
    assert not member.draining


def test_the_last_worker_of_a_role_stays() -> None:
    balancer, _ = _group()
    join = JoinHandler(balancer.membership, lambda address: cast(WorkerLink, None))
    prefill, decode = balancer.membership.members[:2]
    with pytest.raises(InvalidRequest, match="the last prefill worker of the group 'chat'"):
        join.switch(prefill, private.ROLE_DECODE)
    with pytest.raises(InvalidRequest, match="decode worker"):
        join.switch(decode, private.ROLE_DECODE)
    assert not prefill.draining
    join.switch(decode, private.ROLE_PREFILL)
    assert decode.draining
    assert decode.commands.get_nowait().switch_role.role == private.ROLE_PREFILL
