"""The recall task: questions about facts stated earlier in a prompt.

A prompt holds facts ("The code for amber-fox is 4821.") spread over filler sentences and ends
in a question ("What is the code for amber-fox?"). The answer repeats the fact. The task needs
nothing but the prompt, so it measures what a change of the prompt (dropping tokens, another
engine, a hand-off) costs.

Everything is drawn from the given ``random.Random``: the same seed gives the same prompt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def _items(text: str) -> tuple[str, ...]:
    """The comma-separated items of a text."""
    return tuple(" ".join(item.split()) for item in text.split(","))


ADJECTIVES = _items(
    """
    amber, azure, brave, calm, clever, coral, crimson, dapper, dusty, eager, fancy, gentle,
    golden, happy, hollow, icy, ivory, jolly, keen, lively, lucky, mellow, misty, noble, olive,
    pale, proud, quiet, rapid, rusty, sandy, silent, silver, sleepy, snowy, solar, stormy,
    sunny, swift, tidy, velvet, vivid, wild, windy, witty, young, zesty
    """
)
ANIMALS = _items(
    """
    fox, owl, bear, crane, deer, eagle, falcon, goat, hare, ibis, jackal, koala, lemur, lion,
    lynx, mole, moose, newt, otter, panda, pony, puma, quail, raven, robin, seal, shark, sloth,
    snail, spider, squid, swan, tiger, toad, trout, turtle, viper, walrus, whale, wolf, wombat,
    yak, zebra, badger, beaver, bison, camel
    """
)

# Filler sentences are put together from these, so that no text has to be committed or loaded.
SUBJECTS = _items(
    """
    The clerk, The old gardener, A young doctor, The captain, My neighbour, The teacher,
    Her brother, The committee, A traveller, The librarian, His aunt, The engineer, The cook,
    A stranger, The landlord, The musician, Our host, The shopkeeper, A patient friend,
    The postman
    """
)
VERBS = _items(
    """
    carried, found, described, repaired, painted, borrowed, remembered, forgot, counted,
    explained, returned, admired, measured, opened, noticed, prepared, wanted, examined, sold,
    kept
    """
)
OBJECTS = _items(
    """
    the letters, a brass lamp, the wooden table, some apples, the garden gate, a long report,
    the kitchen window, two chairs, the map of the valley, a warm coat, the music,
    an old clock, the harbour plan, a basket of bread, the library books, the broken cart,
    a small boat, the winter stores, the painted door, a list of names
    """
)
ENDINGS = _items(
    """
    before supper, in the morning, near the river, without a word, for the second time,
    on the way to town, after the rain, with great care, during the long evening,
    behind the house, at the end of the road, as everyone expected, in front of the church,
    when the bell rang, under the trees, until it grew dark, with some surprise,
    for no clear reason, by the fire, while the others waited
    """
)

CODE_DIGITS = 4


@dataclass(frozen=True)
class Fact:
    """A name and its code."""

    name: str
    code: str

    @property
    def statement(self) -> str:
        """The sentence that states the fact, and also the expected answer."""
        return f"The code for {self.name} is {self.code}."

    @property
    def question(self) -> str:
        return f"What is the code for {self.name}?"


@dataclass(frozen=True)
class RecallPrompt:
    """A chat prompt and the answer that a model with perfect recall gives."""

    messages: list[dict[str, str]]
    answer: str


def filler_sentence(rng: random.Random) -> str:
    """A sentence without digits and without any of the names used by facts."""
    return (
        f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(OBJECTS)} {rng.choice(ENDINGS)}."
    )


def draw_facts(rng: random.Random, count: int) -> list[Fact]:
    """Facts that share no adjective and no animal."""
    names = zip(rng.sample(ADJECTIVES, count), rng.sample(ANIMALS, count), strict=True)
    return [
        Fact(f"{adjective}-{animal}", "".join(rng.choices("0123456789", k=CODE_DIGITS)))
        for adjective, animal in names
    ]


def build_context(rng: random.Random, facts: Sequence[Fact], filler: Sequence[str]) -> str:
    """The statements of the facts at random places among the filler sentences."""
    sentences = [fact.statement for fact in facts] + list(filler)
    rng.shuffle(sentences)
    return " ".join(sentences)


def recall_prompt(
    rng: random.Random,
    count_tokens: Callable[[list[dict[str, str]]], int],
    tokens: int,
    facts: int | None = None,
    sentence: Callable[[random.Random], str] = filler_sentence,
) -> RecallPrompt:
    """A prompt of about ``tokens`` tokens (never more, if the facts alone fit) with its answer.

    ``count_tokens`` gives the length of messages after the chat template. By default there are
    eight facts, fewer where eight do not fit.
    """
    if facts is None:
        facts = max(2, min(8, tokens // 40))
    known = draw_facts(rng, facts)
    asked = rng.choice(known)

    def messages(filler: Sequence[str]) -> list[dict[str, str]]:
        state = rng.getstate()
        context = build_context(rng, known, filler)
        rng.setstate(state)
        return [{"role": "user", "content": f"{context}\n{asked.question}"}]

    filler: list[str] = []
    room = tokens - count_tokens(messages(filler))
    while room > 0:
        filler += [sentence(rng) for _ in range(max(1, room // 40))]
        room = tokens - count_tokens(messages(filler))
    while filler and count_tokens(messages(filler)) > tokens:
        filler.pop()
    return RecallPrompt(messages(filler), asked.statement)


def is_exact(prompt: RecallPrompt, answer: str) -> bool:
    """Whether a model's answer is the expected one, but for surrounding space."""
    return answer.strip() == prompt.answer


def tokenizer_sample(rng: random.Random) -> str:
    """Text that lets a tokenizer learn the words of this task."""
    facts = draw_facts(rng, 8)
    lines = [build_context(rng, facts, [filler_sentence(rng) for _ in range(4)])]
    lines += [fact.question for fact in facts[:4]]
    lines += ["Continue this text:", "Write about something."]
    return "\n".join(lines)
