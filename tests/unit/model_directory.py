"""A complete Hugging Face model directory of a few kilobytes, made by the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' ~ message.role) }}{% endif %}"
    "<|{{ message.role }}|>{{ message.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ("<|end|>", "<|user|>", "<|assistant|>", "<s>")


def byte_level_tokenizer() -> dict[str, Any]:
    """tokenizer.json of a byte-level BPE with a handful of merges."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("Ġ", "w"), ("Ã", "©"), ("he", "ll"), ("hell", "o")]
    pieces = [*alphabet, *("".join(pair) for pair in merges)]
    vocab = {piece: token_id for token_id, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    return json.loads(tokenizer.to_str())  # type: ignore[no-any-return]


def write_model(directory: Path, tokenizer: dict[str, Any] | None = None) -> Path:
    """Write every file a model directory has; the weights are a few bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        "tokenizer.json": tokenizer or byte_level_tokenizer(),
        "tokenizer_config.json": {
            "chat_template": TEMPLATE,
            "bos_token": {"content": "<s>"},
            "eos_token": "<|end|>",
        },
        "config.json": {"vocab_size": 320, "eos_token_id": 1},
        "generation_config.json": {"eos_token_id": [262, 262]},
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
    (directory / "model-1.safetensors").write_bytes(b"first")
    (directory / "model-2.safetensors").write_bytes(b"second")
    return directory
