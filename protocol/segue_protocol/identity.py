"""Whether two models may share a log of token ids.

Ids are authority and text is derived, so what must agree is what ids mean:
the bytes of every id in use, the special ids and the ids that end an answer.
The prompt's ids come from one side, so merges and template may differ with a
warning; weights and numerics only decide which exactness may be claimed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segue_protocol.errors import IdentityMismatch, InvalidRequest
from segue_protocol.model_files import (
    read_chat_template,
    read_json,
    read_stop_token_ids,
    read_weights_digest,
)
from segue_protocol.vocabulary import Vocabulary
from segue_protocol.wire import public

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a model tells the other side about itself.

    ``vocab_size`` is the width of the logits, padding included; digests are
    SHA-256, empty when unknown; ids are kept ascending without repeats.
    ``numerics`` names the arithmetic, e.g. ``fp32``.
    """

    model: str
    vocab_size: int
    vocabulary_digest: bytes
    special_token_ids: tuple[int, ...]
    stop_token_ids: tuple[int, ...]
    merges_digest: bytes = b""
    template_digest: bytes = b""
    weights_digest: bytes = b""
    numerics: str = ""

    def __post_init__(self) -> None:
        for name in ("vocabulary", "merges", "template", "weights"):
            length = len(getattr(self, f"{name}_digest"))
            if length not in (0, _DIGEST_BYTES):
                raise InvalidRequest(
                    f"{name}_digest has {length} bytes, expected {_DIGEST_BYTES} (SHA-256) or none"
                )
        for name in ("special_token_ids", "stop_token_ids"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    def to_wire(self) -> public.ModelIdentity:
        """The message with the same fields."""
        return public.ModelIdentity(
            model=self.model,
            vocab_size=self.vocab_size,
            vocabulary_digest=self.vocabulary_digest,
            special_token_ids=self.special_token_ids,
            stop_token_ids=self.stop_token_ids,
            merges_digest=self.merges_digest,
            template_digest=self.template_digest,
            weights_digest=self.weights_digest,
            numerics=self.numerics,
        )

    @classmethod
    def from_wire(cls, message: public.ModelIdentity) -> ModelIdentity:
        """The identity in `message`; InvalidRequest when a digest has a wrong length."""
        return cls(
            model=message.model,
            vocab_size=message.vocab_size,
            vocabulary_digest=message.vocabulary_digest,
            special_token_ids=tuple(message.special_token_ids),
            stop_token_ids=tuple(message.stop_token_ids),
            merges_digest=message.merges_digest,
            template_digest=message.template_digest,
            weights_digest=message.weights_digest,
            numerics=message.numerics,
        )

    @classmethod
    def from_directory(
        cls, path: str | Path, *, numerics: str, weights_digest: bytes | None = None
    ) -> ModelIdentity:
        """Read a Hugging Face model directory; the model is named after its last part.

        `weights_digest` is for weights stored elsewhere or in another form;
        None reads every safetensors file. Raises NotFound or InvalidRequest
        naming the file that is missing or damaged, Unsupported for a
        tokenizer without a table from id to bytes.
        """
        directory = Path(path).resolve()
        tokenizer = read_json(directory, "tokenizer.json")
        vocabulary = Vocabulary.from_tokenizer_json(tokenizer)
        template = read_chat_template(directory)
        if weights_digest is None:
            weights_digest = read_weights_digest(directory)
        return cls(
            model=directory.name,
            vocab_size=_vocab_size(directory),
            vocabulary_digest=vocabulary.digest,
            special_token_ids=tuple(vocabulary.special_ids),
            stop_token_ids=read_stop_token_ids(directory),
            merges_digest=merges_digest(tokenizer),
            template_digest=hashlib.sha256(template.encode()).digest() if template else b"",
            weights_digest=weights_digest,
            numerics=numerics,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two identities, in sentences that name the factor."""

    fatal: tuple[str, ...]
    warnings: tuple[str, ...]


def compare(ours: ModelIdentity, theirs: ModelIdentity) -> Comparison:
    """Compare everything that decides whether a log may be shared.

    ``vocab_size`` is not compared: it is padded differently by different
    engines, and the digest covers exactly the ids in use.
    """
    fatal = []
    if not ours.vocabulary_digest or not theirs.vocabulary_digest:
        fatal.append(f"vocabulary digest of {_silent(ours, theirs)} is missing")
    elif ours.vocabulary_digest != theirs.vocabulary_digest:
        fatal.append(
            f"vocabulary differs: {ours.model!r} has {ours.vocabulary_digest.hex()[:12]}, "
            f"{theirs.model!r} has {theirs.vocabulary_digest.hex()[:12]}"
        )
    for what, mine, other in (
        ("special token ids", ours.special_token_ids, theirs.special_token_ids),
        ("stop token ids", ours.stop_token_ids, theirs.stop_token_ids),
    ):
        if mine != other:
            odd = sorted(set(mine) ^ set(other))
            fatal.append(f"{what} differ: only one side has {odd[:8]}")
    warnings = [
        f"{what} differ: the same text may become other prompt ids on the other side"
        for what, mine, other in (
            ("merges or pre-tokenizer", ours.merges_digest, theirs.merges_digest),
            ("chat templates", ours.template_digest, theirs.template_digest),
        )
        if mine != other
    ]
    return Comparison(tuple(fatal), tuple(warnings))


def require_shared_log(ours: ModelIdentity, theirs: ModelIdentity) -> tuple[str, ...]:
    """Return the warnings; raise IdentityMismatch naming every factor that forbids sharing."""
    found = compare(ours, theirs)
    if found.fatal:
        raise IdentityMismatch(
            f"{ours.model!r} and {theirs.model!r} cannot share a log: {'; '.join(found.fatal)}. "
            "Use a model with the same tokenizer on both sides, or answer on one side only"
        )
    return found.warnings


def exactness_level(ours: ModelIdentity, theirs: ModelIdentity) -> Literal[2, 3]:
    """The best exactness two models that share a log may claim (DESIGN, Sampling).

    2 when weights are bit-equal and both sides compute in fp32, else 3.
    Level 1 is a statement about the machinery and not about two models.
    """
    same_weights = ours.weights_digest != b"" and ours.weights_digest == theirs.weights_digest
    return 2 if same_weights and ours.numerics == theirs.numerics == "fp32" else 3


def merges_digest(tokenizer: dict[str, Any]) -> bytes:
    """SHA-256 over all of a tokenizer.json that turns text into ids beside the vocabulary."""
    merges = tokenizer["model"].get("merges") or []
    # Two spellings of one merge exist: "a b" and ["a", "b"].
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
    parts = [pairs, tokenizer.get("pre_tokenizer"), tokenizer.get("normalizer")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def _vocab_size(directory: Path) -> int:
    size = read_json(directory, "config.json").get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise InvalidRequest(
            f"vocab_size in {directory / 'config.json'} is {size!r}, expected a positive number",
            reason="MODEL_FILE_DAMAGED",
        )
    return size


def _silent(ours: ModelIdentity, theirs: ModelIdentity) -> str:
    return " and ".join(repr(side.model) for side in (ours, theirs) if not side.vocabulary_digest)
