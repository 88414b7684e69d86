"""Exactness level 1: with equal logits, split = cloud only = device only at every cut.

Greedy and seeded, for an ordinary answer, one that ends inside the credit, and
one whose stop string lies across the cut. No tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from segue_device import DeviceProfile, FinishReason, Mode, Pacing, Result, Sampling
from segue_protocol.reference import STOP_ID, reference_vocabulary
from tests.harness import Device, reference_cloud, reference_device
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"Once upon a time there was a phone that could not wait. ")
MAX_TOKENS = 40
# Slower than the cloud's whole answer, so that every credit is used up.
PROFILE = DeviceProfile(0.5, 0.001, 0.0, 0.01, 0.0)

GREEDY = Sampling()
SEEDED = Sampling(temperature=0.9, top_k=50, top_p=0.95, min_p=0.01, repetition_penalty=1.1)


@dataclass(frozen=True)
class Case:
    """An answer, found by looking for one with the property it is named after."""

    name: str
    prompt: tuple[int, ...]
    sampling: Sampling


async def _answer(
    device: Device, case: Case, mode: Mode, credit_through: int | None = None
) -> Result:
    stream = device.client.stream(
        prompt_token_ids=case.prompt,
        sampling=case.sampling,
        max_tokens=MAX_TOKENS,
        mode=mode,
        credit_through=credit_through,
        pacing=Pacing.off(),
    )
    async with stream as answer:
        return await answer.final()


async def _device_only(case: Case) -> Result:
    async with reference_device(None, profile=PROFILE) as device:
        return await _answer(device, case, Mode.ONLY_ON_DEVICE)


def _find(name: str, sampling: Sampling, *, stops: bool) -> Case:
    """The first prompt whose answer runs to the limit, or stops after 8 tokens or more."""
    for number in range(200):
        case = Case(name, PROMPT + tuple(str(number).encode()), replace(sampling, seed=number))
        result = run_virtual(_device_only(case))
        has_stop = result.finish_reason is FinishReason.STOP
        if has_stop == stops and len(result.token_ids) >= 8:
            return case
    raise AssertionError("no such answer among 200")


def _with_stop_string(case: Case) -> tuple[Case, int]:
    """Stop at text made by two tokens; returns the cut between them."""
    result = run_virtual(_device_only(case))
    pieces = [reference_vocabulary().text_bytes(token) for token in result.token_ids]
    for cut in range(6, len(pieces)):
        text = pieces[cut - 1] + pieces[cut]
        before = b"".join(pieces[: cut - 1])
        if text.isascii() and pieces[cut - 1] and pieces[cut] and text not in before:
            stop = (text.decode(),)
            return replace(case, sampling=replace(case.sampling, stop=stop)), cut
    raise AssertionError("no two tokens make ASCII text")


async def _check_every_cut(case: Case, cuts: range) -> None:
    whole = await _device_only(case)
    async with reference_cloud(step_s=0.001) as cloud:
        async with reference_device(cloud, profile=PROFILE) as device:
            cloud_only = await _answer(device, case, Mode.ONLY_IN_CLOUD)
            assert (cloud_only.token_ids, cloud_only.text) == (whole.token_ids, whole.text)
            assert cloud_only.finish_reason is whole.finish_reason
            for cut in cuts:
                split = await _answer(device, case, Mode.SPLIT, cut)
                assert split.token_ids == whole.token_ids, f"cut at {cut}"
                assert split.text == whole.text, f"cut at {cut}"
                assert split.finish_reason is whole.finish_reason
                inside = cut >= len(whole.token_ids)
                assert split.takeover_index == (None if inside else cut)
                assert split.usage.cloud_tokens == min(cut, len(whole.token_ids))
                assert split.usage.discarded_tokens == 0
                assert split.cloud is not None
                assert split.cloud.usage.recomputed_tokens == 0


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_ordinary_answer_at_every_cut(sampling: Sampling) -> None:
    case = _find("ordinary", sampling, stops=False)
    run_virtual(_check_every_cut(case, range(1, MAX_TOKENS + 1)))


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_stop_token_inside_and_outside_the_credit(sampling: Sampling) -> None:
    case = _find("stop token", sampling, stops=True)
    whole = run_virtual(_device_only(case))
    assert whole.token_ids[-1] == STOP_ID
    run_virtual(_check_every_cut(case, range(1, len(whole.token_ids) + 3)))


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_stop_string_across_the_cut(sampling: Sampling) -> None:
    case, across = _with_stop_string(_find("stop string", sampling, stops=False))
    whole = run_virtual(_device_only(case))
    assert whole.finish_reason is FinishReason.STOP
    assert len(whole.token_ids) == across + 1
    assert not whole.text.endswith(case.sampling.stop[0])
    run_virtual(_check_every_cut(case, range(1, across + 1)))
