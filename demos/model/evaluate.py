"""Measure a trained model: held-out loss, recall by prompt length, free text, demo prompts.

Every answer is generated token by token from the chat template, in float32.

Usage: ``python evaluate.py MODEL recall|loss|samples|demo [--scratch SCRATCH] [--count N]``
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import recall
import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

RECALL_LENGTHS = (100, 200, 400, 700, 1000, 1400, 2048)
SAMPLE_REQUESTS = (
    "Write about marriage.",
    "Write about memory.",
    "Continue this text: The morning was fine, and the whole party set out to walk to the village.",
)
ANSWER_TOKENS = 110
"""A demo answer should have at least this many tokens before it ends."""

Messages = list[dict[str, str]]


class Chat:
    """A model with its tokenizer, answering chat messages."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def prompt(self, messages: Messages) -> list[int]:
        rendered = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        return list(rendered["input_ids"])

    def count_tokens(self, messages: Messages) -> int:
        return len(self.prompt(messages))

    @torch.no_grad()
    def answers(self, messages: Messages, count: int = 1, **options: object) -> list[list[int]]:
        """Generated token ids without the end token; ``options`` go to ``generate``."""
        ids = torch.tensor([self.prompt(messages)] * count)
        output = self.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        end = self.tokenizer.eos_token_id
        return [
            row[: row.index(end)] if end in row else row
            for row in output[:, ids.shape[1] :].tolist()
        ]

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids)


def recall_accuracy(
    chat: Chat, tokens: int, count: int, seed: int = 1000, facts: int | None = None
) -> tuple[float, float]:
    """Share of exact greedy answers, and the mean prompt length, over ``count`` prompts."""
    exact = total = 0
    for index in range(count):
        rng = random.Random(f"{seed}/{tokens}/{index}")
        example = recall.recall_prompt(rng, chat.count_tokens, tokens, facts)
        total += chat.count_tokens(example.messages)
        (answer,) = chat.answers(example.messages, do_sample=False, max_new_tokens=20)
        exact += recall.is_exact(example, chat.text(answer))
    return exact / count, total / count


@torch.no_grad()
def held_out_loss(chat: Chat, corpus: Path, window: int = 512) -> tuple[float, float]:
    """Nats per token and bits per character of the documents never trained on."""
    nats, tokens, characters = 0.0, 0, 0
    with corpus.open(encoding="utf-8") as lines:
        records = [record for record in map(json.loads, lines) if record["split"] == "held_out"]
    for record in records:
        ids = chat.tokenizer.encode(record["text"])
        characters += len(record["text"])
        for start in range(0, len(ids), window):
            # Each window starts afresh from BOS: a cautious figure for long documents.
            row = torch.tensor([[chat.tokenizer.bos_token_id, *ids[start : start + window]]])
            nats += chat.model(input_ids=row, labels=row).loss.item() * (row.shape[1] - 1)
            tokens += row.shape[1] - 1
    return nats / tokens, nats / 0.6931471805599453 / characters


def print_recall(chat: Chat, count: int) -> None:
    for tokens in RECALL_LENGTHS:
        accuracy, length = recall_accuracy(chat, tokens, count)
        print(
            f"{tokens:5} tokens (mean {length:6.1f}): exact {accuracy:.3f} of {count}", flush=True
        )


def print_samples(chat: Chat) -> None:
    for request in SAMPLE_REQUESTS:
        torch.manual_seed(0)
        (answer,) = chat.answers(
            [{"role": "user", "content": request}],
            do_sample=True,
            temperature=0.8,
            top_k=40,
            max_new_tokens=300,
        )
        print(f"> {request}\n[{len(answer)} tokens] {chat.text(answer)}\n", flush=True)


def print_demo(chat: Chat, prompts: Path, count: int) -> None:
    """How long the answers to the demo prompts are over ``count`` seeds."""
    for prompt in json.loads(prompts.read_text()):
        torch.manual_seed(prompt["sampling"]["seed"])
        answers = chat.answers(
            prompt["messages"],
            count,
            do_sample=True,
            temperature=prompt["sampling"]["temperature"],
            top_k=prompt["sampling"]["top_k"],
            max_new_tokens=prompt["max_tokens"],
        )
        lengths = sorted(map(len, answers))
        long = sum(length >= ANSWER_TOKENS for length in lengths)
        print(
            f"{prompt['name']}: prompt {chat.count_tokens(prompt['messages'])} tokens, "
            f"{long}/{count} answers of {ANSWER_TOKENS} tokens or more, shortest {lengths[0]}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("what", choices=("recall", "loss", "samples", "demo"))
    parser.add_argument("--scratch", type=Path, help="folder with corpus.jsonl (for loss)")
    parser.add_argument("--count", type=int, default=100, help="prompts per length, or seeds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chat = Chat(arguments.model)
    if arguments.what == "recall":
        print_recall(chat, arguments.count)
    elif arguments.what == "samples":
        print_samples(chat)
    elif arguments.what == "demo":
        print_demo(chat, Path(__file__).with_name("demo_prompts.json"), arguments.count)
    else:
        nats, bits = held_out_loss(chat, arguments.scratch / "corpus.jsonl")
        print(f"held-out loss {nats:.3f} nats/token, {bits:.3f} bits/character")


if __name__ == "__main__":
    main()
