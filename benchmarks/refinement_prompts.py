"""Questions about facts in a prompt, none of which the tiny model was trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demos.model.recall import recall_prompt
from segue_protocol.tokenizer import ChatTokenizer

# So far from the end the fact that is asked for lies at least: outside of what
# is kept in any case.
TAIL_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, and the answer with its stop token that repeats the fact."""

    ids: Sequence[int]
    answer: Sequence[int]


def questions(
    tokenizer: ChatTokenizer, stop_id: int, tokens: int, count: int, seed: str
) -> Iterator[Question]:
    """`count` prompts of nearly `tokens` tokens, in an order that never changes.

    Every prompt states up to eight facts of one form between other sentences, at
    any place with the same chance; those whose fact lies in the tail are left out.
    """
    place = 0
    while count:
        rng = random.Random(f"refinement/{seed}/{tokens}/{place}")
        place += 1
        drawn = recall_prompt(rng, lambda messages: len(tokenizer.encode_chat(messages)), tokens)
        (message,) = drawn.messages
        _, behind = message["content"].split(drawn.answer)
        if len(tokenizer.encode(behind)) >= TAIL_TOKENS:
            count -= 1
            ids = list(tokenizer.encode_chat(drawn.messages))
            yield Question(ids, [*tokenizer.encode(drawn.answer), stop_id])
