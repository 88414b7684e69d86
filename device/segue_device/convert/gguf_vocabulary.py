"""The tokenizer inside a GGUF file: the same ids for the same text as tokenizer.json.

Segue itself reads tokenizer.json, which is copied beside the file; this part
keeps the file whole for every other program that opens it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segue_protocol.errors import InvalidRequest, Unsupported
from segue_protocol.model_files import read_chat_template, read_json, read_stop_token_ids
from segue_protocol.vocabulary import Vocabulary

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How text is cut before the merges, by llama.cpp's name for it.
_PRE_TOKENIZERS: dict[tuple[tuple[object, ...], ...], str] = {
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "starcoder",
    (("Split", _WORDS % "{1,3}"), ("ByteLevel", False)): "llama-bpe",
    (("Split", _WORDS % ""), ("ByteLevel", False)): "qwen2",
}
# llama.cpp's tokenizer of that name takes a whole piece before it looks at merges.
_IGNORES_MERGES = ("llama-bpe",)


def write_vocabulary(writer: Any, directory: Path, vocab_size: int) -> None:
    """Add the tokenizer and chat template of `directory` to a gguf.GGUFWriter.

    Raises Unsupported for a tokenizer that llama.cpp would not follow,
    InvalidRequest when it has more ids than the model's `vocab_size`, NotFound
    when no file says what ends an answer.
    """
    spec = read_json(directory, "tokenizer.json")
    vocabulary = Vocabulary.from_tokenizer_json(spec)
    model = spec["model"]
    if model.get("type") != "BPE" or (spec.get("decoder") or {}).get("type") != "ByteLevel":
        raise _unsupported(f"a {model.get('type')} tokenizer that is no byte-level BPE")
    if max(vocabulary) >= vocab_size:
        raise InvalidRequest(
            f"tokenizer.json has the id {max(vocabulary)}, config.json a vocabulary of "
            f"{vocab_size}; download both again from one model",
            reason="MODEL_FILE_DAMAGED",
        )
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    # The format has no empty lists, and llama.cpp loads nothing without this one.
    if not merges:
        raise _unsupported("no merges")
    pieces, types = _pieces(spec, vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(spec))
    writer.add_token_list(pieces)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    # Prompts are whole when they are tokenized: the template writes what they begin with.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    config = read_json(directory, "config.json")
    if isinstance(config.get("bos_token_id"), int):
        writer.add_bos_token_id(config["bos_token_id"])
    if isinstance(config.get("pad_token_id"), int):
        writer.add_pad_token_id(config["pad_token_id"])
    writer.add_eos_token_id(read_stop_token_ids(directory)[0])
    template = read_chat_template(directory)
    if template is not None:
        writer.add_chat_template(template)


def _pieces(spec: Mapping[str, Any], vocab_size: int) -> tuple[list[str], Sequence[int]]:
    """The piece and the type of every id, those that no text has included."""
    from gguf import TokenType

    pieces = [f"[UNUSED{token_id}]" for token_id in range(vocab_size)]
    types = [TokenType.UNUSED] * vocab_size
    for piece, token_id in spec["model"]["vocab"].items():
        pieces[token_id], types[token_id] = piece, TokenType.NORMAL
    for added in spec.get("added_tokens") or []:
        kind = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
        pieces[added["id"]], types[added["id"]] = added["content"], kind
    return pieces, types


def _pre_tokenizer(spec: Mapping[str, Any]) -> str:
    # llama.cpp does not normalise; NFC leaves alone what keyboards produce.
    normalizer = (spec.get("normalizer") or {"type": "NFC"})["type"]
    if normalizer != "NFC":
        raise _unsupported(f"the normalizer {normalizer}")
    found = spec.get("pre_tokenizer") or {}
    steps = found.get("pretokenizers", [found])
    name = _PRE_TOKENIZERS.get(tuple(_step(each) for each in steps))
    if name is None or (name in _IGNORES_MERGES) != bool(spec["model"].get("ignore_merges")):
        raise _unsupported(f"a pre-tokenizer of its own: {found}")
    return name


def _step(step: Mapping[str, Any]) -> tuple[object, ...]:
    """What of a pre-tokenizer's step decides where text is cut."""
    kind = step.get("type")
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return kind, step.get("use_regex", True)
    if kind == "Digits":
        return kind, step.get("individual_digits")
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return kind, step.get("pattern", {}).get("Regex")
    return (kind, "unknown")


def _unsupported(what: str) -> Unsupported:
    return Unsupported(
        f"tokenizer.json has {what}; llama.cpp would cut text differently. Expected byte-level "
        f"BPE cut as by {', '.join(_PRE_TOKENIZERS.values())}",
        reason="TOKENIZER_UNSUPPORTED",
    )
