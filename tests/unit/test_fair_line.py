"""Who is next: tenants by what they were served, requests of a tenant as they came."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from segue_cloud.cluster.fair_line import FairLine, Place


def _serve(line: FairLine) -> Place:
    """Let the first in line through."""
    first = line.first
    assert first is not None
    line.leave(first)
    return first


def test_one_request_does_not_wait_for_a_hundred_of_another_tenant() -> None:
    line = FairLine()
    for _ in range(100):
        line.join("many", 10)
    one = line.join("one", 10)
    served = [_serve(line) for _ in range(3)]
    assert one in served


def test_two_tenants_share_by_tokens_and_not_by_requests() -> None:
    line = FairLine()
    for _ in range(60):
        line.join("short", 10)
        line.join("long", 30)
    turns = [_serve(line).tenant for _ in range(40)]
    assert turns.count("short") == 30
    assert turns.count("long") == 10


def test_a_tenant_that_was_away_does_not_come_back_with_savings() -> None:
    line = FairLine()
    for _ in range(100):
        line.join("busy", 10)
    for _ in range(50):
        _serve(line)
    for _ in range(100):
        line.join("new", 10)
    turns = [_serve(line).tenant for _ in range(20)]
    assert 9 <= turns.count("new") <= 11


def test_urgent_ones_go_ahead_and_within_a_tenant_the_newest() -> None:
    line = FairLine()
    first, second, third = (line.join("a", tokens) for tokens in (5, 1, 2))
    urgent = line.join("a", 100, urgent=True)
    assert [_serve(line) for _ in range(4)] == [first, urgent, third, second]
    assert len(line) == 0


def test_who_gives_up_leaves_no_gap() -> None:
    line = FairLine()
    places = [line.join("a", 1) for _ in range(3)] + [line.join("a", 1, urgent=True)]
    line.leave(places[1])
    line.leave(places[3])
    assert [_serve(line), _serve(line)] == [places[0], places[2]]
    assert (len(line), line.first) == (0, None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=60))
def test_waiting_tenants_never_drift_apart(requests: list[tuple[str, int]]) -> None:
    """While two tenants wait all the time, they differ by two requests at most."""
    line, served = FairLine(), dict.fromkeys("abc", 0)
    blocker = line.join("z", 0)
    for tenant, tokens in requests:
        line.join(tenant, tokens)
    line.leave(blocker)
    left = {each: sum(tenant == each for tenant, _ in requests) for each in "abc"}
    while line.first is not None:
        place = _serve(line)
        served[place.tenant] += place.tokens
        left[place.tenant] -= 1
        waiting = [each for each in "abc" if left[each]]
        for one, other in itertools.combinations(waiting, 2):
            assert abs(served[one] - served[other]) <= 100
    assert not any(left.values())
