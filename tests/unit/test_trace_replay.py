"""The replay on cases reckoned by hand, and what holds for every policy."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from demos.trace.case import Case
from demos.trace.figures import attainment, binding, figures, missed
from demos.trace.outcome import quality_of_experience
from demos.trace.policies import POLICIES
from demos.trace.requests import draw_requests
from demos.trace.split import kept_ranges
from segue_protocol.errors import InvalidRequest
from tests.unit.trace_cases import even_case, request, run

# Of the case made for it: half a round trip, prefill of 100 tokens in the cloud and here.
HALF_S, CLOUD_S, HERE_S = 0.02, 0.1, 1.0


def test_a_device_alone(tmp_path: Path) -> None:
    (alone,) = run("device_only", even_case(tmp_path), [request()])
    assert alone.ttft_s == pytest.approx(HERE_S)
    assert alone.tpot_s == pytest.approx(0.05, rel=0.01)
    assert alone.max_gap_s == pytest.approx(0.05, rel=0.01)
    assert (alone.shown_tokens, alone.cloud_tokens, alone.call) == (40, 0, None)
    assert missed(alone, replace(Case.load().targets, ttft_s=0.9)) == "device"


def test_a_whole_answer_from_the_cloud(tmp_path: Path) -> None:
    (whole,) = run("cloud_pd", even_case(tmp_path), [request()])
    assert whole.ttft_s == pytest.approx(HALF_S + CLOUD_S + HALF_S)
    assert whole.cloud_tokens == whole.shown_tokens == 40
    assert whole.call is not None
    transfer_s, decode_s = 0.1, 39 * 0.010
    assert whole.call.slots.total == pytest.approx(CLOUD_S + transfer_s + decode_s)
    # Prompt in the slot; prompt and answer, in pages of 16 tokens, at the decoder.
    pages_tokens = 16 * math.ceil((100 + 40 - 1) / 16)
    held_s = CLOUD_S + transfer_s + decode_s
    assert whole.call.cells.total == pytest.approx(
        100 * (CLOUD_S + transfer_s) + pages_tokens * held_s
    )


def test_an_aggregated_answer(tmp_path: Path) -> None:
    (whole,) = run("cloud_aggregated", even_case(tmp_path), [request()])
    assert whole.ttft_s == pytest.approx(HALF_S + CLOUD_S + HALF_S)
    assert whole.call is not None
    assert whole.call.slots.total == pytest.approx(CLOUD_S + 39 * 0.010)


def test_a_split_answer(tmp_path: Path) -> None:
    (split,) = run("split", even_case(tmp_path), [request(output=60)])
    first_s = HALF_S + CLOUD_S + HALF_S
    assert split.ttft_s == pytest.approx(first_s)
    # N tau >= P(L) - t1 + b N, with tau 50 ms and b 10 ms.
    needed = math.ceil((HERE_S - first_s) / (0.05 - 0.01))
    assert split.oracle_tokens == needed
    assert split.takeover_index is not None
    assert abs(split.takeover_index - needed) <= 2
    assert split.cloud_tokens >= split.takeover_index
    assert split.max_gap_s < 0.25
    assert split.shown_tokens == 60


def test_a_device_that_is_slower_than_it_knows_extends_its_credit(tmp_path: Path) -> None:
    case, slow = even_case(tmp_path), replace(request(output=120), speed=0.6)
    (known,) = run("split", case, [request(output=120)])
    (split,) = run("split", case, [slow])
    assert split.call is not None
    assert known.call is not None
    # How far it stretches what it shows, and how much more it asks for, is the SDK's affair.
    assert split.call.credit > known.call.credit
    assert split.takeover_index == split.call.credit == split.cloud_tokens
    assert split.max_gap_s < 0.25


def test_an_answer_that_ends_before_the_device_is_ready(tmp_path: Path) -> None:
    (split,) = run("split", even_case(tmp_path), [request(output=5)])
    assert (split.cloud_tokens, split.shown_tokens, split.takeover_index) == (5, 5, None)


def test_a_cloud_without_room_leaves_the_device_alone(tmp_path: Path) -> None:
    case = even_case(tmp_path, prefill_slots=1, first_token_s=0.3)
    burst = [request(index, prompt=1000) for index in range(3)]
    split = run("split", case, burst)
    # The first holds the one slot for a second, so nobody else is let in; and is late itself.
    assert [each.refused for each in split] == [True] * 3
    assert all(each.shown_tokens == 40 for each in split)
    assert all(each.ttft_s == pytest.approx(10.0, rel=0.01) for each in split)
    whole = run("cloud_pd", case, burst)
    assert [each.shown_tokens for each in whole] == [0, 0, 0]
    assert attainment(whole, case.targets) == 0
    assert binding(whole, case.targets) == "prefill slots"


def test_migration_waits_for_its_buffer(tmp_path: Path) -> None:
    case = even_case(tmp_path)
    case = replace(case, targets=replace(case.targets, ttft_s=0.5))
    (routed,) = run("routed_migration", case, [request(output=200)])
    assert routed.takeover_index is not None
    # Showing the buffer lasts as long as the device's prefill: 5 tokens are made while
    # one is shown, and what is made meanwhile must be prefilled, too.
    (split,) = run("split", case, [request(output=200)])
    assert routed.takeover_index > split.takeover_index
    assert routed.max_gap_s < 0.25


@pytest.mark.parametrize("policy", POLICIES)
def test_every_answer_is_whole_and_the_cluster_idle_again(policy: str) -> None:
    """`replay` raises if a page, place, slot or waiting call is left."""
    case = Case.load()
    arrivals = [
        (0.15 * place, 40 + 37 * (place * place % 50), 1 + 7 * place % 90) for place in range(80)
    ]
    requests = draw_requests(arrivals, case, seed=3)
    outcomes = run(policy, case, requests)
    assert [each.shown_tokens for each in outcomes] == [each.output_tokens for each in requests]
    for each in outcomes:
        if each.takeover_index is not None:
            assert each.takeover_index <= each.cloud_tokens <= each.request.max_tokens
        elif each.call is not None:
            assert each.cloud_tokens == each.request.output_tokens
        if each.call is not None:
            assert each.call.slots.level == each.call.cells.level == 0
            assert each.call.slots.total > 0
    again = run(policy, case, requests)
    assert figures(outcomes, case) == figures(again, case)
    other = run(policy, case, draw_requests(arrivals, case, seed=4))
    assert figures(other, case) != figures(outcomes, case)


def test_refinement_spares_cloud_tokens_and_reuse_still_more() -> None:
    case = Case.load()
    requests = draw_requests([(place, 1500, 120) for place in range(40)], case, seed=1)
    tokens = [
        figures(run(policy, case, requests), case)["cloud_tokens"]
        for policy in ("cloud_pd", "split", "split_refined_r25", "split_refined")
    ]
    # By what was measured the tuner may keep less than a quarter.
    assert tokens == sorted(tokens, reverse=True)
    assert min(ratio for ratio, kept in case.quality.items() if kept >= 0.95) < 0.25
    reused = run("split_refined_reuse", case, requests)
    assert figures(reused, case)["cloud_tokens"] < tokens[-1]
    assert figures(reused, case)["asked_cloud"] < 1


def test_kept_ranges_hold_the_ratio_and_the_guards() -> None:
    for ratio in (0.25, 0.5, 0.75):
        kept = kept_ranges(request(prompt=2000), ratio)
        assert kept[0][0] == 0
        assert kept[-1][1] == 2000
        assert all(before[1] < after[0] for before, after in pairwise(kept))
        total = sum(end - start for start, end in kept)
        assert total == 36 + int(ratio * (2000 - 36))
    assert kept_ranges(request(prompt=20), 0.25) == [(0, 20)]


def test_quality_of_experience_by_hand() -> None:
    reading = np.arange(10) / 4.8
    assert quality_of_experience(1.0 + reading, 1.0) == 1.0
    assert quality_of_experience(np.zeros(10), 1.0) == 1.0
    assert quality_of_experience(np.array([]), 1.0) == 0.0
    late = quality_of_experience(2.0 + reading, 1.0)
    whole_s = float(np.sum(2.0 + reading[-1] - (1.0 + reading)))
    assert late == pytest.approx(1 - 10 * 1.0 / whole_s)


def test_a_case_is_read_strictly(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "demos/trace/case-conversation.json").read_text()
    path = tmp_path / "case.json"
    for wrong, said in (
        (text.replace('"rtt_s"', '"rtt_ms"'), "rtt_ms"),
        (text.replace('"jitter_s": 0.005,', ""), "jitter_s"),
        ("[]", "expected a table"),
        ("{", "cannot read"),
    ):
        path.write_text(wrong)
        with pytest.raises(InvalidRequest, match=said):
            Case.load(path)
