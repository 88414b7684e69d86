"""Whose tokens go into the next iteration (Sarathi-Serve, 2403.02310, algorithm 3)."""

from __future__ import annotations

from collections.abc import Sequence


def prompt_chunks(budget_tokens: int, decodes: int, left: Sequence[int]) -> list[int]:
    """How many tokens each prompt gets, first come, first served.

    Every running request has its one token already (`decodes`); what they leave
    of the budget goes to the prompts, of which `left` tokens are not computed
    yet. So no decode waits for a prompt, and an iteration takes no longer than
    the budget allows. Prompts that get nothing are not listed.
    """
    room = budget_tokens - decodes
    chunks = []
    for tokens in left:
        if room <= 0:
            break
        chunks.append(min(tokens, room))
        room -= chunks[-1]
    return chunks
