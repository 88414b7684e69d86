"""Training sequences: recall conversations, passages of prose, and repeated random tokens.

All rows of a batch have the same fixed length (a compiled model wants few shapes), and a batch
always holds about the same number of tokens. A row carries one weight class per token:
0 = no loss, 1 = the recalled digits, 2 = the name in a question, 3 = the other words of a recall
answer, 4 = prose.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import recall
import torch
from tokenizer import ASSISTANT, BOS, EOS, PAD, SYSTEM, USER
from tokenizers import Tokenizer

BATCH_TOKENS = 4096
DIGIT, NAME, FRAME, PROSE = 1, 2, 3, 4
Row = tuple[list[int], list[int]]
"""Token ids and their weight classes, equally long."""

_ABBREVIATIONS = ("Mr.", "Mrs.", "Dr.", "St.", "i.e.", "e.g.", "etc.", "vs.")
_SENTENCE_END = re.compile(
    "".join(rf"(?<!\b{re.escape(word)})" for word in _ABBREVIATIONS)
    + r"(?<=[.!?\"'])(?<![,;][\"'])(?=\s+[\"'A-Z])"
)


@dataclass(frozen=True)
class RecallShape:
    """One difficulty of the recall task: row length, number of facts, tokens of filler."""

    row: int
    facts: tuple[int, int]
    filler: tuple[int, int]


def joined(pieces: Iterable[list[int]]) -> list[int]:
    """The token ids of consecutive pieces."""
    return list(chain.from_iterable(pieces))


def tensors(rows: list[Row], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows cut or padded to ``length`` as (ids, weight classes)."""
    ids = torch.full((len(rows), length), PAD)
    classes = torch.zeros((len(rows), length), dtype=torch.long)
    for index, (row_ids, row_classes) in enumerate(rows):
        count = min(length, len(row_ids))
        ids[index, :count] = torch.tensor(row_ids[:count])
        classes[index, :count] = torch.tensor(row_classes[:count])
    return ids, classes


class Batches:
    """Draws batches from the corpus and the recall task; deterministic for a seed."""

    def __init__(self, tokenizer: Tokenizer, corpus: Path, seed: int) -> None:
        self.tokenizer = tokenizer
        self.rng = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self.documents: list[list[list[int]]] = []  # document -> sentences -> token ids
        self.held_out: list[list[int]] = []
        self.fillers: list[str] = []
        with corpus.open(encoding="utf-8") as lines:
            for line in lines:
                self._add_document(json.loads(line))
        self._sizes = [sum(map(len, sentences)) for sentences in self.documents]
        words = " ".join(recall.ADJECTIVES) + "-" + "-".join(recall.ANIMALS) + "0123456789"
        self.digits = torch.tensor(self.encode("0123456789"))
        self.recall_vocabulary = torch.tensor(sorted(set(self.encode(" " + words))))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _add_document(self, record: dict[str, str]) -> None:
        if record["split"] == "held_out":
            self.held_out.append(self.encode(record["text"]))
            return
        # White space stays at the front of each sentence, so that the concatenated token ids
        # are those of the whole text.
        sentences = _SENTENCE_END.split(record["text"])
        encoded = self.tokenizer.encode_batch(sentences, add_special_tokens=False)
        self.documents.append([encoding.ids for encoding in encoded])
        self.fillers += [
            text
            for text in map(str.strip, sentences)
            if 30 < len(text) < 140
            and text[0].isupper()
            and text[-1] == "."
            and not re.search(r"[\d\n\"]", text)
        ]

    def repeated(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Random sequences said three times: the shortest way to a head that copies.

        Two details decide whether copying appears at all: a token stands once in a sequence, and
        the rows end after the third time. (Filling rows with further repeats did not work.)
        """
        period = self.rng.randint(8, 32)
        rows = BATCH_TOKENS // (3 * period)
        orders = torch.rand(rows, len(self.recall_vocabulary), generator=self._generator)
        once = self.recall_vocabulary[orders.argsort(1)[:, :period]]
        ids = once.repeat(1, 3)
        classes = torch.zeros_like(ids)
        classes[:, period + 1 :] = DIGIT
        return ids, classes

    def lookups(self, gap: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys, ``gap`` separators that all keys share, then digits; said three times, shuffled.

        "The code for amber-fox is 4821" puts two common tokens between the name and the digits.
        This teaches, gap by gap, to look further back than copying needs.
        """
        keys = self.rng.randint(3, 12 if gap == 0 else 8)
        values = self.rng.randint(1, recall.CODE_DIGITS)
        width = 1 + gap + values
        rows = BATCH_TOKENS // (3 * keys * width)
        words = self.recall_vocabulary[~torch.isin(self.recall_vocabulary, self.digits)]
        orders = torch.rand(rows, len(words), generator=self._generator)
        drawn = words[orders.argsort(1)[:, : keys + gap]]
        separators = drawn[:, None, keys:].expand(rows, keys, gap)
        picks = torch.randint(10, (rows, keys, values), generator=self._generator)
        items = torch.cat([drawn[:, :keys, None], separators, self.digits[picks]], 2)
        order = torch.rand(rows, 3, keys, generator=self._generator).argsort(2)
        ids = torch.cat(
            [
                items.gather(1, order[:, time, :, None].expand(rows, keys, width))
                for time in range(3)
            ],
            1,
        )
        classes = torch.zeros_like(ids)
        classes[:, keys:, 1 + gap :] = DIGIT
        return ids.flatten(1), classes.flatten(1)

    # Recall

    def _filler(self, tokens: int, sources: float) -> list[str]:
        """Filler sentences of about ``tokens`` tokens, a share of them from the corpus."""
        sentences: list[str] = []
        characters = tokens * 3.6
        while characters > 0:
            from_corpus = self.rng.random() < sources
            sentence = (
                self.rng.choice(self.fillers) if from_corpus else recall.filler_sentence(self.rng)
            )
            characters -= len(sentence)
            sentences.append(sentence)
        return sentences

    def _turn(self, fact: recall.Fact, head: list[int]) -> Row:
        """One question and its answer; ``head`` is what stands before the question."""
        before, after = fact.question.rsplit("-", 1)
        question = [head + self.encode(before + "-"), self.encode(after[:-1]), self.encode("?")]
        answer = self.encode(fact.statement)
        ids = [*joined(question), EOS, ASSISTANT, *answer, EOS]
        # The animal follows from the adjective: learning to complete the name comes first, and
        # needs a loss of its own, not diluted by the words of the answer that follow by rote.
        classes = [0] * len(question[0]) + [NAME] * len(question[1]) + [0] * len(question[2])
        digits = recall.CODE_DIGITS
        classes += [0, 0] + [FRAME] * (len(answer) - digits - 1) + [DIGIT] * digits + [FRAME] * 2
        return ids, classes

    def conversation(self, shape: RecallShape) -> Row:
        """Facts among filler, then questions until the row is full.

        Facts are asked with replacement: without it the model learns to answer by elimination.
        """
        facts = recall.draw_facts(self.rng, self.rng.randint(*shape.facts))
        filler = self._filler(self.rng.randint(*shape.filler), self.rng.choice((0.0, 0.5, 1.0)))
        context = self.encode(recall.build_context(self.rng, facts, filler))
        if self.rng.random() < 0.2:
            ids, head = [BOS, SYSTEM, *context, EOS], [USER]
        else:
            ids, head = [BOS, *self._system(), USER, *context], self.encode("\n")
        classes = [0] * len(ids)
        while True:
            turn_ids, turn_classes = self._turn(self.rng.choice(facts), head)
            if len(ids) + len(turn_ids) > shape.row:
                return ids, classes
            ids, classes, head = ids + turn_ids, classes + turn_classes, [USER]

    def recall(self, shape: RecallShape) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [self.conversation(shape) for _ in range(BATCH_TOKENS // shape.row)]
        return tensors(rows, shape.row)

    # Prose

    def _sentences(self, tokens: int) -> list[list[int]]:
        """Consecutive sentences of one document, at least ``tokens`` tokens if it has them."""
        document = self.rng.choices(self.documents, self._sizes)[0]
        last = len(document) - 1
        rest = 0
        while last > 0 and rest + len(document[last]) < tokens:
            rest += len(document[last])
            last -= 1
        start = self.rng.randint(0, last)
        taken: list[list[int]] = []
        count = 0
        for sentence in document[start:]:
            taken.append(sentence)
            count += len(sentence)
            if count >= tokens:
                break
        return taken

    def _topic(self, passage: str) -> str:
        """A long word of the passage, one that comes back in it where there is one."""
        words = re.findall(r"\b[a-z]{6,}\b", passage)
        repeated = [word for word in words if words.count(word) > 1]
        return self.rng.choice(repeated or words or ["nothing"])

    def passage(self, row: int) -> Row:
        """A chat turn answered by a passage of prose, or a plain piece of a document."""
        if self.rng.random() < 0.3:
            text = self.tokenizer.decode(joined(self._sentences(row))).strip()
            ids = [BOS, *self.encode(text)]
            return ids, [PROSE] * len(ids)
        target = self.rng.randint(220, 420)
        room = max(40, row - target - 20)
        notes = self._notes(room) if self.rng.random() < 0.25 else []
        if self.rng.random() < 0.6:
            given = self.rng.randint(20, max(30, room - len(notes)))
            sentences = self._sentences(given + target)
            prompt: list[int] = []
            used = 0
            while used < len(sentences) - 1 and len(prompt) < given:
                prompt += sentences[used]
                used += 1
            passage = self.tokenizer.decode(joined(sentences[used:])).strip()
            request = f"Continue this text: {self.tokenizer.decode(prompt).strip()}"
        else:
            passage = self.tokenizer.decode(joined(self._sentences(target))).strip()
            request = f"Write about {self._topic(passage)}."
        ids = [BOS, *self._system(), USER, *notes]
        silent = len(ids)
        answer = self.encode(passage)
        ids += [*self.encode(request), EOS, ASSISTANT, *answer]
        if len(answer) >= 200:  # a short passage must not teach the model to stop early
            ids.append(EOS)
        return ids, [0] * silent + [PROSE] * (len(ids) - silent)

    def _notes(self, room: int) -> list[int]:
        """Facts and filler before a request that has nothing to do with them."""
        facts = recall.draw_facts(self.rng, self.rng.randint(1, max(1, min(8, room // 30))))
        filler = self._filler(self.rng.randint(0, max(0, room - 14 * len(facts))), 0.5)
        return self.encode(recall.build_context(self.rng, facts, filler) + "\n")

    def _system(self) -> list[int]:
        """Now and then the system message that many clients send."""
        if self.rng.random() < 0.9:
            return []
        return [SYSTEM, *self.encode("You are a helpful assistant."), EOS]

    def prose(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = []
        for _ in range(BATCH_TOKENS // row):
            ids, classes = self.passage(row)
            while len(ids) < row - 64:  # long rows hold several conversations
                more_ids, more_classes = self.passage(min(row, 512))
                ids, classes = ids + more_ids, classes + more_classes
            rows.append((ids, classes))
        return tensors(rows, row)
