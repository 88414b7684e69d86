"""The reference model: a pure function of (ids, positions) worth testing with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue_protocol import reference
from segue_protocol.errors import InvalidRequest
from segue_protocol.identity import compare
from segue_protocol.sampling import Sampling, sample

pairs = st.lists(st.tuples(st.integers(0, 319), st.integers(0, 2**32 - 1)), max_size=30)


def answer(sampling: Sampling, prompt: list[int], limit: int) -> list[int]:
    ids, state = list(prompt), reference.state_of(prompt, range(len(prompt)))
    while len(ids) < len(prompt) + limit:
        made = sample(
            reference.logits_from_state(state),
            sampling,
            prompt_ids=prompt,
            output_ids=ids[len(prompt) :],
            index=len(ids) - len(prompt),
        )
        state = reference.state_of([made.token_id], [len(ids)], state)
        ids.append(made.token_id)
        if made.token_id == reference.STOP_ID:
            break
    return ids[len(prompt) :]


@settings(max_examples=30)
@given(pairs=pairs, cut=st.integers(0, 30), order=st.randoms())
def test_order_and_chunks_do_not_matter(pairs: list[tuple[int, int]], cut: int, order) -> None:
    ids, positions = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    whole = reference.reference_logits(ids, positions)
    order.shuffle(pairs)
    state = 0
    for part in (pairs[:cut], pairs[cut:]):
        state = reference.state_of([pair[0] for pair in part], [pair[1] for pair in part], state)
    assert np.array_equal(reference.logits_from_state(state), whole)


def test_position_and_id_matter_and_a_pair_can_be_taken_back() -> None:
    state = reference.state_of([1, 2], [0, 1])
    assert state != reference.state_of([2, 1], [0, 1])
    assert state != reference.state_of([1, 2], [0, 2])
    taken = (state - int(reference.pair_hash([2], [1])[0])) % 2**64
    assert taken == reference.state_of([1], [0])


def test_logits_are_frozen_for_ever() -> None:
    logits = reference.reference_logits([72, 105], [0, 1])
    assert logits.dtype == np.float32
    assert logits.shape == (reference.DEFAULT_VOCAB_SIZE,)
    assert logits[[0, 72, 261]].tolist() == [
        0.5078100562095642,
        2.928053379058838,
        2.6854310035705566,
    ]


def test_padding_changes_nothing_but_the_width() -> None:
    wide = reference.reference_logits([1], [0], 500)
    assert np.array_equal(wide[:320], reference.reference_logits([1], [0]))
    assert np.all(np.isneginf(wide[len(reference.reference_vocabulary()) :]))
    assert compare(reference.reference_identity(500), reference.reference_identity()).fatal == ()
    with pytest.raises(InvalidRequest, match="vocab_size"):
        reference.reference_identity(100)
    with pytest.raises(InvalidRequest, match="positions"):
        reference.pair_hash([1], [])


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_p=0.95, seed=3)])
def test_answers_end_by_chance_after_about_64_tokens(sampling: Sampling) -> None:
    answers = [answer(sampling, [prompt, 1], 1000) for prompt in range(60)]
    assert all(each[-1] == reference.STOP_ID for each in answers)
    assert 32 < np.mean([len(each) for each in answers]) < 128
    used = {token_id for each in answers for token_id in each}
    assert len(used) > 150
    assert not used & {reference.USER_ID, reference.ASSISTANT_ID}
    text = "".join(map(reference.reference_vocabulary().decode, answers))
    assert "\ufffd" in text
