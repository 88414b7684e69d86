"""What is prefilled, what is left, with and without a refinement."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue_device.prompt_progress import PromptProgress


def test_a_whole_prompt_in_chunks() -> None:
    progress = PromptProgress(10, 3)
    assert (progress.left_tokens, progress.done_tokens, progress.kept_tokens) == (7, 3, 10)
    assert progress.claim_chunk(4) == [3, 4, 5, 6]
    progress.move_to(7)
    assert progress.claim_chunk(4) == [7, 8, 9]
    progress.move_to(10)
    assert progress.claim_chunk(4) == []
    assert progress.left_tokens == 0


def test_a_refinement_leaves_out_only_what_is_not_computed() -> None:
    progress = PromptProgress(20, 0)
    progress.move_to(5)
    progress.refine([(6, 8), (12, 15), (19, 20)])
    assert (progress.left_tokens, progress.done_tokens, progress.kept_tokens) == (6, 5, 11)
    assert progress.claim_chunk(3) == [6, 7, 12]
    progress.move_to(13)
    assert progress.claim_chunk(9) == [13, 14, 19]
    progress.move_to(8)  # an append was stopped and undone
    assert progress.claim_chunk(2) == [12, 13]


def test_what_is_being_computed_is_not_left_out_any_more() -> None:
    progress = PromptProgress(20, 0)
    assert progress.claim_chunk(6) == [0, 1, 2, 3, 4, 5]
    progress.refine([(9, 11), (19, 20)])
    progress.move_to(6)
    assert (progress.left_tokens, progress.kept_tokens) == (3, 9)
    assert progress.claim_chunk(2) == [9, 10]
    progress.refine([(19, 20)])  # the list once more, after the stream was resumed
    progress.move_to(11)
    assert progress.claim_chunk(5) == [19]
    assert progress.kept_tokens == 9


@given(st.sets(st.integers(0, 40), min_size=1), st.integers(0, 40), st.integers(1, 9))
def test_chunks_cover_what_is_kept_once(kept: set[int], computed: int, size: int) -> None:
    last = max(kept)
    progress = PromptProgress(last + 1, 0)
    progress.move_to(min(computed, last))
    computed = progress.position
    progress.refine([(each, each + 1) for each in sorted(kept) if each >= computed])
    seen: list[int] = []
    while chunk := progress.claim_chunk(size):
        assert len(chunk) <= size
        seen += chunk
        progress.move_to(chunk[-1] + 1)
    assert seen == sorted(each for each in kept if each >= computed)
    assert progress.done_tokens == progress.kept_tokens == computed + len(seen)
