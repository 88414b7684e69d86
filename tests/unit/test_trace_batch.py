"""The batch of the replay: closed form and single steps are the same thing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demos.trace.batch import BatchInstance, Decoding, Prompt
from demos.trace.events import Alarm, Events
from segue_cloud.profiles.base import CloudProfile, DecodeCost, PrefillCost

PROFILE = CloudProfile(
    name="steep",
    source="made up",
    prefill=PrefillCost(0.02, 0.001, 1e-6),
    decode=(DecodeCost(0.010, 1e-4, 0.001), DecodeCost(0.004, 1e-4, 0.003, from_batch=3)),
)

# When each joins, its context, its tokens.
Joins = Sequence[tuple[float, int, int]]


def decode(joins: Joins, watched: bool) -> list[list[float]]:
    """Token times of every sequence of one instance."""
    events = Events()
    batch = BatchInstance(events, PROFILE)
    times: list[list[float]] = [[] for _ in joins]

    def join(place: int, context: int, tokens: int) -> None:
        batch.join(
            Decoding(context, tokens, watched, lambda made: times[place].extend(made), lambda: None)
        )

    for place, (at_s, context, tokens) in enumerate(joins):
        events.at(at_s, lambda place=place, c=context, t=tokens: join(place, c, t))
    events.run()
    assert batch.running == 0
    return times


def test_one_sequence_alone_is_a_sum_of_the_profile_s_steps() -> None:
    (times,) = decode([(1.0, 100, 3)], watched=False)
    steps = [PROFILE.decode_s([100 + step]) for step in range(3)]
    assert times == pytest.approx([1 + sum(steps[: end + 1]) for end in range(3)])


def test_who_comes_in_mid_step_joins_behind_it() -> None:
    first, second = decode([(0.0, 10, 3), (0.005, 20, 2)], watched=True)
    alone, both = PROFILE.decode_s([10]), PROFILE.decode_s([11, 20])
    third = PROFILE.decode_s([12, 21])
    assert first == pytest.approx([alone, alone + both, alone + both + third])
    assert second == pytest.approx([alone + both, alone + both + third])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 2, allow_nan=False), st.integers(1, 2000), st.integers(1, 60)),
        min_size=1,
        max_size=8,
    )
)
def test_stretches_and_single_steps_are_what_one_step_after_the_other_gives(joins: Joins) -> None:
    expected = one_after_the_other(joins)
    for watched in (True, False):
        for times, wanted in zip(decode(joins, watched), expected, strict=True):
            assert times == pytest.approx(wanted, abs=1e-9)


def one_after_the_other(joins: Joins) -> list[list[float]]:
    """Token times by a loop over steps, with the profile's own arithmetic."""
    times: list[list[float]] = [[] for _ in joins]
    now_s = 0.0
    while True:
        unfinished = [
            place for place, (_, _, tokens) in enumerate(joins) if len(times[place]) < tokens
        ]
        if not unfinished:
            return times
        batch = [place for place in unfinished if joins[place][0] <= now_s]
        if not batch:
            now_s = min(joins[place][0] for place in unfinished)
            continue
        now_s += PROFILE.decode_s([joins[place][1] + len(times[place]) for place in batch])
        for place in batch:
            times[place].append(now_s)


def test_a_sequence_that_leaves_gets_nothing_of_the_step_under_way() -> None:
    events = Events()
    batch = BatchInstance(events, PROFILE)
    made: list[float] = []
    sequence = Decoding(10, 100, True, made.extend, lambda: None)
    batch.join(sequence)
    step_s = PROFILE.decode_s([10])
    events.at(1.5 * step_s, lambda: batch.leave(sequence))
    events.run()
    assert made == pytest.approx([step_s])
    assert batch.running == 0


def test_an_extended_sequence_goes_on() -> None:
    events = Events()
    batch = BatchInstance(events, PROFILE)
    made: list[float] = []
    stopped: list[float] = []
    sequence = Decoding(10, 2, True, made.extend, lambda: stopped.append(events.now_s))
    batch.join(sequence)
    events.at(0.005, lambda: batch.extend(sequence, 3))
    events.run()
    assert len(made) == 5
    assert stopped == [made[-1]]


def test_chunks_ride_along_within_the_budget() -> None:
    events = Events()
    batch = BatchInstance(events, PROFILE, iteration_tokens=64)
    done: list[float] = []
    batch.prefill(Prompt(100, lambda: done.append(events.now_s)))
    made: list[float] = []
    events.at(0.001, lambda: batch.join(Decoding(10, 2, True, made.extend, lambda: None)))
    events.run()
    # The first step began before the sequence joined: 64 tokens of the prompt alone.
    first = PROFILE.prefill.seconds([(0, 64)])
    second = PROFILE.prefill.seconds([(64, 100)]) + PROFILE.decode_s([10]) - 0.010
    assert made[0] == pytest.approx(first + second)
    assert done == pytest.approx([first + second])


def test_events_come_in_order_and_alarms_once() -> None:
    events, seen = Events(), list[str]()
    alarm = Alarm(events, lambda: seen.append(f"alarm {events.now_s}"))
    events.at(2.0, lambda: seen.append("second"))
    events.at(1.0, lambda: seen.append("first"))
    events.at(1.0, lambda: seen.append("then"))
    alarm.set(0.5)
    alarm.set(3.0)
    events.at(3.5, lambda: alarm.set(4.0))
    events.at(3.6, alarm.off)
    events.run()
    assert seen == ["first", "then", "second", "alarm 3.0"]
