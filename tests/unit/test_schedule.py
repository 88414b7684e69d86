"""Decodes first, then prompts in their order, and never more than the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_cloud.engine.reference import ReferenceEngine
from segue_cloud.kv.pages import PagePool
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import InlineCompute
from segue_cloud.worker.schedule import prompt_chunks
from segue_protocol.errors import InvalidRequest


@given(
    budget=st.integers(0, 300),
    decodes=st.integers(0, 300),
    left=st.lists(st.integers(1, 200), max_size=12),
)
def test_an_iteration_stays_within_its_budget_and_uses_it(
    budget: int, decodes: int, left: list[int]
) -> None:
    chunks = prompt_chunks(budget, decodes, left)
    assert decodes + sum(chunks) <= max(budget, decodes)
    assert all(0 < chunk <= tokens for chunk, tokens in zip(chunks, left, strict=False))
    # First come, first served: only the last that gets any is cut short.
    assert chunks[:-1] == left[: max(len(chunks) - 1, 0)]
    if budget > decodes:
        assert sum(chunks) == min(budget - decodes, sum(left)), "no room is left unused"


@given(
    prompts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    decodes=st.integers(0, 7),
    budget=st.integers(8, 32),
)
def test_every_prompt_comes_to_its_end_in_its_turn(
    prompts: list[int], decodes: int, budget: int
) -> None:
    left = dict(enumerate(prompts))
    ended: list[int] = []
    for _ in range(sum(prompts)):
        for place, chunk in zip(
            list(left), prompt_chunks(budget, decodes, list(left.values())), strict=False
        ):
            left[place] -= chunk
            if not left[place]:
                del left[place]
                ended.append(place)
    assert ended == list(range(len(prompts)))


def test_a_budget_that_a_full_batch_uses_up_is_refused() -> None:
    engine = ReferenceEngine()
    pool = PagePool(engine.layout, 4, 4)
    with pytest.raises(InvalidRequest, match="iteration_tokens is 8 and max_batch 8"):
        Batch(engine, pool, InlineCompute(), max_batch=8, iteration_tokens=8)
    pool.close()
