"""The cluster of the replay, call by call: credit, parking, eviction, ends in every phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from demos.trace.aggregated import AggregatedGateway
from demos.trace.call import Call, Phase
from demos.trace.events import Events
from demos.trace.gateway import Gateway
from demos.trace.pd import PdGateway
from tests.unit.trace_cases import even_case


class Recorder:
    """A peer that writes down what it is told."""

    def __init__(self) -> None:
        self.made_s: list[float] = []
        self.listed = self.turned_away = 0

    def tokens(self, made_s: Sequence[float]) -> None:
        self.made_s += made_s

    def kept_list(self) -> None:
        self.listed += 1

    def refused(self) -> None:
        self.turned_away += 1


def call_of(credit: int, output: int = 40, prompt: int = 100, keep_ratio: float = 1.0) -> Call:
    return Call(
        peer=Recorder(),
        prompt_tokens=prompt,
        output_tokens=output,
        credit=credit,
        keep_ratio=keep_ratio,
    )


def made_s(call: Call) -> list[float]:
    assert isinstance(call.peer, Recorder)
    return call.peer.made_s


def test_credit_bounds_what_is_made_and_lets_a_parked_call_go_on(tmp_path: Path) -> None:
    events = Events()
    gateway = PdGateway(events, even_case(tmp_path), 1)
    call = call_of(credit=5)
    gateway.submit(call)
    events.at(1.0, lambda: gateway.raise_credit(call, 8))
    events.at(2.0, lambda: gateway.raise_credit(call, 7))  # never cut
    events.at(3.0, lambda: gateway.end(call))
    events.run()
    # Prefill 100 ms, transfer 100 ms, then 10 ms a token; parked until the credit rose.
    expected = [0.1, 0.21, 0.22, 0.23, 0.24, 1.01, 1.02, 1.03]
    assert made_s(call) == pytest.approx(expected)
    assert call.place_s == pytest.approx(0.04 + 0.03)
    gateway.check_idle()


def test_a_credit_that_rises_while_it_decodes_is_no_pause(tmp_path: Path) -> None:
    events = Events()
    gateway = PdGateway(events, even_case(tmp_path), 1)
    call = call_of(credit=5)
    gateway.submit(call)
    events.at(0.05, lambda: gateway.raise_credit(call, 10))  # while it is prefilled
    events.at(0.225, lambda: gateway.raise_credit(call, 40))
    events.run()
    assert made_s(call) == pytest.approx([0.1, *(0.21 + 0.01 * step for step in range(39))])
    gateway.check_idle()


def test_a_parked_call_is_evicted_for_who_is_new_and_prefilled_again(tmp_path: Path) -> None:
    events = Events()
    gateway = PdGateway(events, even_case(tmp_path, pages=10), 1)  # 160 tokens
    old, new = call_of(credit=5), call_of(credit=40)
    gateway.submit(old)
    events.at(1.0, lambda: gateway.submit(new))
    events.at(1.05, lambda: phases.append(old.phase))
    events.at(1.1, lambda: gateway.raise_credit(old, 40))
    phases: list[Phase] = []
    events.run()
    assert phases == [Phase.EVICTED]
    assert len(made_s(old)) == len(made_s(new)) == 40
    # It waits for the pages of the other, whose end is at 1.59; then comes a prefill of
    # prompt and answer.
    assert made_s(new)[-1] == pytest.approx(1.59)
    assert made_s(old)[5] == pytest.approx(1.59 + 0.105)
    assert made_s(old) == sorted(made_s(old))
    gateway.check_idle()


def test_the_list_comes_when_its_layer_is_done(tmp_path: Path) -> None:
    events = Events()
    case = even_case(tmp_path)
    gateway = PdGateway(events, case, 1)
    call = call_of(credit=5, keep_ratio=0.5)
    listed_s: list[float] = []
    call.peer.kept_list = lambda: listed_s.append(events.now_s)  # type: ignore[method-assign]
    gateway.submit(call)
    events.at(3.0, lambda: gateway.end(call))
    events.run()
    assert listed_s == pytest.approx([0.1 * case.cloud.list_share])


@pytest.mark.parametrize("end_s", [0.0, 0.05, 0.1, 0.15, 0.2, 0.215, 0.5, 0.62, 9.0])
@pytest.mark.parametrize("kind", ["pd", "aggregated"])
def test_a_call_that_is_ended_in_any_phase_leaves_nothing(
    tmp_path: Path, kind: str, end_s: float
) -> None:
    """A second one competes for slots and pages; parked ones are ended at last, too."""
    events = Events()
    case = even_case(tmp_path, pages=16, prefill_slots=1, instances=2 if kind == "pd" else 1)
    gateway: Gateway
    gateway = PdGateway(events, case, 1) if kind == "pd" else AggregatedGateway(events, case)
    ended, other = call_of(credit=10), call_of(credit=10)
    gateway.submit(ended)
    gateway.submit(other)
    events.at(end_s, lambda: gateway.end(ended))
    events.at(end_s, lambda: gateway.end(ended))
    events.at(10.0, lambda: gateway.end(other))
    events.run()
    assert len(made_s(other)) == 10
    assert len(made_s(ended)) <= 10
    gateway.check_idle()
    for call in (ended, other):
        assert call.phase is Phase.OVER
        assert call.slots.level == call.cells.level == 0


def test_who_waits_too_long_is_refused(tmp_path: Path) -> None:
    events = Events()
    gateway = PdGateway(events, even_case(tmp_path, prefill_slots=1, first_token_s=0.25), 1)
    calls = [call_of(credit=5) for _ in range(4)]
    for call in calls:
        gateway.submit(call)
    events.at(5.0, lambda: [gateway.end(call) for call in calls])
    events.run()
    turned_away = [call.peer.turned_away for call in calls]  # type: ignore[attr-defined]
    # A slot is held for prefill and transfer, 0.2 s: the second to go is late, too.
    assert sum(turned_away) == 3
    assert all(
        call.waited_for == "prefill slots"
        for call, gone in zip(calls, turned_away, strict=True)
        if gone
    )
    gateway.check_idle()
