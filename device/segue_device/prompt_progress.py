"""What of the prompt the device's engine has, and what it still has to prefill."""

from __future__ import annotations

from collections.abc import Sequence

Runs = Sequence[tuple[int, int]]


class PromptProgress:
    """Positions of one prompt that take part, as half-open runs in ascending order.

    A computed cell is never discarded. Cells keep the original positions, so a
    refined prompt has fewer cells than positions.
    """

    def __init__(self, prompt_tokens: int, cached_tokens: int) -> None:
        """`cached_tokens`: leading tokens of the prompt that the engine holds already."""
        self.prompt_tokens = prompt_tokens
        # Below `position` everything is in the cache, below `claimed` it is being computed.
        self.position = self.claimed = cached_tokens
        self._runs: list[tuple[int, int]] = [(0, prompt_tokens)]
        self.refined = False

    @property
    def kept_tokens(self) -> int:
        """Tokens of the prompt that take part."""
        return sum(end - start for start, end in self._runs)

    @property
    def left_tokens(self) -> int:
        """Tokens that are still to be prefilled."""
        return sum(max(0, end - max(start, self.position)) for start, end in self._runs)

    @property
    def done_tokens(self) -> int:
        """Tokens in the cache."""
        return self.kept_tokens - self.left_tokens

    def claim_chunk(self, tokens: int) -> list[int]:
        """The positions to prefill now, `tokens` at most; they may lie in several runs."""
        chunk: list[int] = []
        for start, end in self._runs:
            first = max(start, self.position)
            chunk.extend(range(first, min(end, first + tokens - len(chunk))))
        self.claimed = chunk[-1] + 1 if chunk else self.position
        return chunk

    def move_to(self, position: int) -> None:
        """The cache holds what takes part below `position`, and nothing of the prompt above."""
        self.position = self.claimed = min(position, self.prompt_tokens)

    def refine(self, runs: Runs) -> None:
        """Replace what is left above `claimed` by a part of it, once."""
        self.refined = True
        begun = [(start, min(end, self.claimed)) for start, end in self._runs]
        self._runs = [(start, end) for start, end in begun if start < end] + list(runs)
