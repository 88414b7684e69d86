"""The sampler: its rules, its bounds, and the same bits in numpy and torch.

JavaScript reproduces the vectors in `device-js/test/vectors.test.js`.
"""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segue_protocol.errors import InternalError, InvalidRequest, Unsupported
from segue_protocol.exactmath import exact_exp, exact_log
from segue_protocol.philox import gumbels, uniforms
from segue_protocol.sampling import Sampled, Sampling, sample
from tests.unit import torch_sampler

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "protocol/segue_protocol/vectors/sampling.json"


def choose(logits: Any, sampling: Sampling, index: int = 0, prompt: Any = (), output: Any = ()):
    array = np.asarray(logits, dtype=np.float32)
    return sample(array, sampling, prompt_ids=prompt, output_ids=output, index=index)


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.1, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 40, 10**6]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 1e-6]),
    min_p=st.sampled_from([0.0, 0.001, 0.1, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.2, 0.8]),
    presence_penalty=st.sampled_from([0.0, 0.5, -1.0]),
    frequency_penalty=st.sampled_from([0.0, 0.25, -0.1]),
    logit_bias=st.dictionaries(st.integers(0, 9), st.floats(-100, 100), max_size=3),
    seed=st.integers(0, 2**64 - 1),
)


# ---- the same bits everywhere -------------------------------------------------


def test_committed_vectors_are_what_the_script_makes() -> None:
    made = runpy.run_path(str(ROOT / "protocol/tools/make_vectors.py"))["render"]()
    assert made == VECTORS.read_text(encoding="utf-8")


def test_philox_gives_the_words_published_with_random123() -> None:
    words = [case["words"] for case in json.loads(VECTORS.read_text())["philox"]]
    assert words == [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ]


@settings(max_examples=60, deadline=None)
@given(
    sampling=samplings,
    vocabulary=st.sampled_from([10, 300, 5000]),
    spread=st.sampled_from([0.0, 0.01, 2.0, 12.0]),
    whole=st.booleans(),
    index=st.integers(0, 2**32 - 1),
    row=st.integers(0, 2**32 - 1),
)
def test_torch_chooses_the_same_with_the_same_margin(
    sampling: Sampling, vocabulary: int, spread: float, whole: bool, index: int, row: int
) -> None:
    generator = np.random.default_rng(row)
    logits = (generator.normal(size=vocabulary) * spread).astype(np.float32)
    if whole:  # many ties
        logits = np.round(logits)
    logits[generator.random(vocabulary) < 0.1] = -np.inf
    logits[0] = 0.5
    prompt = generator.integers(0, vocabulary, 7).tolist()
    output = generator.integers(0, vocabulary, 5).tolist() * 2
    ours = choose(logits, sampling, index, prompt, output)
    theirs = torch_sampler.sample(
        torch.from_numpy(logits), sampling, prompt_ids=prompt, output_ids=output, index=index
    )
    assert (ours.token_id, ours.margin) == theirs


# ---- exact arithmetic ---------------------------------------------------------


def test_log_and_exp_are_within_one_ulp() -> None:
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        pytest.skip("no wider float to compare with")
    generator = np.random.default_rng(0)
    positive = np.concatenate(
        [generator.random(20_000), 1 - generator.random(1000) * 1e-9, [2.0**-53, 1 - 2.0**-53]]
    )
    negative = np.concatenate([-708 * generator.random(20_000), -generator.random(1000)])
    for ours, exact, x in (
        (exact_log, np.log, positive),
        (exact_exp, np.exp, negative),
    ):
        found, true = ours(x), exact(x.astype(np.longdouble))
        assert np.max(np.abs((found - true) / np.spacing(np.abs(found)))) < 1


def test_exp_is_zero_below_its_floor_and_one_at_zero() -> None:
    assert exact_exp(np.array([0.0, -708.1, -1e300])).tolist() == [1.0, 0.0, 0.0]


def test_noise_is_strictly_inside_and_standard_gumbel() -> None:
    ids = np.arange(40_000)
    draws, noise = uniforms(ids, 5, 9), gumbels(ids, 5, 9)
    assert 0 < draws.min() < draws.max() < 1
    assert noise.mean() == pytest.approx(0.5772, abs=0.03)
    assert noise.var() == pytest.approx(math.pi**2 / 6, abs=0.06)
    # Each token's noise is its own: it does not depend on which others are drawn.
    assert gumbels([39_999, 17], 5, 9).tolist() == [noise[39_999], noise[17]]


# ---- the rules ------------------------------------------------------------------


def test_greedy_takes_the_smallest_of_equals() -> None:
    assert choose([1, 3, 3, 2], Sampling()).token_id == 1
    assert choose([1, 3, 3, 2], Sampling()).margin == 0


def test_frequencies_follow_the_softmax() -> None:
    logits = np.log([0.5, 0.3, 0.2])
    made = [
        choose(logits, Sampling(temperature=1.0, seed=4), index).token_id for index in range(4000)
    ]
    assert np.bincount(made) / 4000 == pytest.approx([0.5, 0.3, 0.2], abs=0.025)


def test_same_key_same_choice_other_key_other_choices() -> None:
    def choices(seed: int) -> list[int]:
        return [
            choose([0.0] * 50, Sampling(temperature=1.0, seed=seed), i).token_id for i in range(9)
        ]

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)
    assert choices(1) != choices(1 + 2**32)


@settings(max_examples=80, deadline=None)
@given(sampling=samplings, row=st.lists(st.floats(-20, 20, width=32), min_size=10, max_size=60))
def test_choice_survives_its_own_truncation(sampling: Sampling, row: list[float]) -> None:
    made = choose(row, sampling, prompt=[1], output=[2])
    assert 0 <= made.token_id < len(row)
    assert made.margin >= 0
    assert made.logprob <= 0
    if sampling.temperature == 0 or sampling.top_k == 1:
        plain = Sampling(
            logit_bias=sampling.logit_bias,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
        )
        assert made.token_id == choose(row, plain, prompt=[1], output=[2]).token_id


def test_truncation_keeps_what_it_says() -> None:
    logits = np.log([0.05, 0.4, 0.3, 0.15, 0.1])

    def seen(**limits: Any) -> set[int]:
        sampling = Sampling(temperature=1.0, seed=1, **limits)
        return {choose(logits, sampling, index).token_id for index in range(400)}

    assert seen(top_k=2) == {1, 2}
    assert seen(top_p=0.39) == {1}
    assert seen(top_p=0.6) == {1, 2}
    assert seen(min_p=0.3) == {1, 2, 3}
    assert seen(top_k=3, top_p=0.8) == {1, 2}  # 0.7 of the remaining 0.85 is more than 0.8
    assert seen() == {0, 1, 2, 3, 4}


def test_penalties_count_prompt_and_output_as_documented() -> None:
    assert choose([2.0, 1.9], Sampling(repetition_penalty=1.2), prompt=[0]).token_id == 1
    assert choose([-2.0, -1.9], Sampling(repetition_penalty=1.2), output=[1]).token_id == 0
    assert choose([2.0, 1.9], Sampling(presence_penalty=0.2), prompt=[0]).token_id == 0
    assert choose([2.0, 1.9], Sampling(presence_penalty=0.2), output=[0]).token_id == 1
    assert choose([2.0, 1.75], Sampling(frequency_penalty=0.1), output=[0, 0]).token_id == 0
    assert choose([2.0, 1.75], Sampling(frequency_penalty=0.1), output=[0, 0, 0]).token_id == 1


def test_logprob_is_of_the_raw_logits() -> None:
    made = choose(np.log([0.25, 0.75]), Sampling(logit_bias={0: 50.0}))
    assert made.token_id == 0
    assert made.logprob == pytest.approx(math.log(0.25), abs=1e-6)


def test_one_survivor_has_an_infinite_margin() -> None:
    assert choose([-np.inf, 1.0], Sampling()) == Sampled(1, math.inf, 0.0)
    assert choose([1.0, 2.0], Sampling(temperature=1.0, top_k=1)).margin == math.inf


def test_logits_are_not_changed() -> None:
    logits = np.array([1.0, 2.0])
    logits.flags.writeable = False
    sampling = Sampling(temperature=1.0, logit_bias={0: 1.0})
    sample(logits, sampling, prompt_ids=[], output_ids=[], index=0)


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [math.inf, 1.0], [-math.inf, -math.inf]])
def test_broken_logits_are_an_internal_error(bad: list[float]) -> None:
    with pytest.raises(InternalError, match="largest logit"):
        choose(bad, Sampling())


def test_ids_outside_the_logits_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="logit_bias"):
        choose([1.0, 2.0], Sampling(logit_bias={2: 1.0}))
    with pytest.raises(InvalidRequest, match="the prompt"):
        choose([1.0, 2.0], Sampling(repetition_penalty=2.0), prompt=[-1])
    with pytest.raises(Unsupported, match="shape"):
        choose([[1.0, 2.0]], Sampling())


# ---- the settings -----------------------------------------------------------------


@given(sampling=samplings, stop=st.lists(st.text(min_size=1, max_size=5), max_size=3))
def test_settings_survive_the_wire_and_are_valid(sampling: Sampling, stop: list[str]) -> None:
    sent = Sampling(logit_bias=sampling.logit_bias, seed=sampling.seed, stop=tuple(stop))
    for each in (sent, sampling):
        each.validate(vocab_size=10)
        assert Sampling.from_wire(each.to_wire()) == each


def test_absent_optional_fields_are_off() -> None:
    assert Sampling.from_wire(type(Sampling().to_wire())()) == Sampling(seed=0)


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": math.nan},
        {"temperature": -0.1},
        {"temperature": 1e-9},
        {"temperature": 101.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.inf},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.inf},
        {"presence_penalty": 2.1},
        {"frequency_penalty": -2.1},
        {"seed": -1},
        {"seed": 2**64},
        {"logit_bias": {100: 1.0}},
        {"logit_bias": {1: math.nan}},
        {"logit_bias": {1: 101.0}},
        {"stop_token_ids": (100,)},
        {"stop_token_ids": tuple(range(65))},
        {"stop": ("",)},
        {"stop": ("x" * 257,)},
        {"stop": ("x",) * 17},
    ],
)
def test_absurd_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        Sampling(**bad).validate(vocab_size=100)
