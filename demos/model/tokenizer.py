"""Train the tokenizer and write it with its chat template.

Byte-level BPE with single digits: any bytes can be encoded, and a number is read digit by
digit. The BOS token is written by the chat template, never by the tokenizer.

Usage: ``python tokenizer.py SCRATCH OUT`` (SCRATCH holds ``corpus.jsonl``)
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import recall
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>")
PAD, BOS, EOS, SYSTEM, USER, ASSISTANT = range(len(SPECIAL_TOKENS))

CHAT_TEMPLATE = """\
{{ '<|bos|>' }}{% for message in messages %}\
{{ '<|' + message['role'] + '|>' + message['content'] + '<|eos|>' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""

TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|bos|>",
    "eos_token": "<|eos|>",
    "pad_token": "<|pad|>",
    "add_bos_token": False,
    "add_eos_token": False,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 4096,
}


def train(scratch: Path) -> Tokenizer:
    """Train on the corpus plus recall prompts, so that every name is one or two tokens."""
    with (scratch / "corpus.jsonl").open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    rng = random.Random(0)
    texts += [recall.tokenizer_sample(rng) for _ in range(4000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def save(tokenizer: Tokenizer, out: Path) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``chat_template.jinja``."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path, help="folder with corpus.jsonl")
    parser.add_argument("out", type=Path, help="model folder to write to")
    arguments = parser.parse_args()
    save(train(arguments.scratch), arguments.out)
