"""The order of offers."""

from __future__ import annotations

from segue_cloud.cluster.forwarding import PREFIX_SLACK, order
from segue_cloud.cluster.local_link import LocalLink
from segue_cloud.cluster.members import Member
from segue_cloud.engine.reference import ReferenceEngine
from segue_protocol.wire import private

ENGINE = ReferenceEngine()


def _member(pid: int, open_streams: int = 0, turn: int = 0, suspect: bool = False) -> Member:
    return Member(
        role=private.ROLE_PREFILL,
        pid=pid,
        incarnation=bytes(16),
        identity=ENGINE.identity,
        layout=ENGINE.layout,
        max_context_tokens=64,
        link=LocalLink(),
        open_streams=open_streams,
        accepted_turn=turn,
        suspect=suspect,
    )


def _order(members: list[Member], matched: dict[int, int] | None = None) -> list[int]:
    found = order(members, lambda member: (matched or {}).get(member.pid, 0))
    return [member.pid for member in found]


def test_the_fewest_open_streams_first() -> None:
    assert _order([_member(1, 2), _member(2, 0), _member(3, 1)]) == [2, 3, 1]
    assert _order([]) == []


def test_ties_rotate() -> None:
    assert _order([_member(1, turn=3), _member(2, turn=1), _member(3, turn=2)]) == [2, 3, 1]


def test_the_longest_match_first_while_its_holder_is_hardly_busier() -> None:
    near, far = PREFIX_SLACK, PREFIX_SLACK + 1
    assert _order([_member(1), _member(2, near)], {2: 3}) == [2, 1]
    assert _order([_member(1), _member(2, far)], {2: 3}) == [1, 2]
    assert _order([_member(1), _member(2), _member(3)], {2: 3, 3: 4}) == [3, 2, 1]


def test_a_suspect_is_asked_only_where_nobody_else_is() -> None:
    frozen = _member(1, suspect=True)
    assert _order([frozen, _member(2, 5)], {1: 9}) == [2]
    assert _order([frozen]) == [1]
