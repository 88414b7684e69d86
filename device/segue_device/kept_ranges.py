"""Placeholder until merged."""

from __future__ import annotations

from collections.abc import Sequence


def remaining_runs(
    prompt_tokens: int, kept: Sequence[tuple[int, int]], computed: int
) -> list[tuple[int, int]]:
    runs = [(max(start, computed), end) for start, end in kept if end > computed]
    if not runs or runs[-1][1] < prompt_tokens:
        runs.append((prompt_tokens - 1, prompt_tokens))
    return runs
