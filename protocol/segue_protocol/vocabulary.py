"""What each token id stands for, in bytes: the part of a tokenizer both sides must share.

Pure Python on purpose: a gateway or a phone can turn ids into text without
the ``tokenizers`` library.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from segue_protocol.errors import InvalidRequest, Unsupported
from segue_protocol.model_files import read_json

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_MARK = "\u2581"


class Vocabulary:
    """A table id -> bytes of the ids in use, immutable.

    Ids the model can emit but no tokenizer knows (padding of the logits) are
    not in the table and have no text; neither have special tokens.
    """

    def __init__(self, pieces: Mapping[int, bytes], special_ids: Collection[int] = ()) -> None:
        """`pieces` maps ids to bytes, `special_ids` are those without text.

        Raises InvalidRequest when a special id has no piece or an id is no u32.
        """
        unknown = sorted(set(special_ids) - pieces.keys())
        if unknown:
            raise InvalidRequest(f"special ids {unknown[:5]} have no piece; add them to the table")
        if pieces and (min(pieces) < 0 or max(pieces) >= 2**32):
            raise InvalidRequest("token ids must lie in 0..2^32-1; check the tokenizer")
        self._pieces = dict(sorted(pieces.items()))
        self.special_ids = frozenset(special_ids)

    @classmethod
    def from_directory(cls, path: str | Path) -> Vocabulary:
        """Read `path`/tokenizer.json. Raises NotFound, InvalidRequest, Unsupported."""
        return cls.from_tokenizer_json(read_json(Path(path), "tokenizer.json"))

    @classmethod
    def from_tokenizer_json(cls, spec: Mapping[str, Any]) -> Vocabulary:
        """Build from the content of a tokenizer.json.

        Byte-level BPE and sentencepiece-like pieces (U+2581 for a space,
        ``<0xNN>`` for a byte) are understood, anything else is Unsupported.
        Added tokens stand for their own text.
        """
        try:
            vocab = spec["model"]["vocab"]
            to_bytes = _piece_decoder(spec.get("decoder"))
            if isinstance(vocab, list):  # Unigram: [[piece, score], ...], the index is the id
                vocab = {piece: token_id for token_id, (piece, _score) in enumerate(vocab)}
            added = spec.get("added_tokens") or []
            pieces = {token_id: to_bytes(piece) for piece, token_id in vocab.items()}
            pieces |= {token["id"]: token["content"].encode() for token in added}
            special = {token["id"] for token in added if token.get("special")}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidRequest(
                f"tokenizer.json is not in the form of the tokenizers library ({error!r}); "
                "download it again",
                reason="MODEL_FILE_DAMAGED",
            ) from error
        return cls(pieces, special)

    def __len__(self) -> int:
        """Number of ids in use."""
        return len(self._pieces)

    def __contains__(self, token_id: object) -> bool:
        return token_id in self._pieces

    def __iter__(self) -> Iterator[int]:
        """The ids in use, ascending."""
        return iter(self._pieces)

    def piece(self, token_id: int) -> bytes:
        """What `token_id` stands for, special or not; InvalidRequest if it is not in use."""
        try:
            return self._pieces[token_id]
        except KeyError:
            raise InvalidRequest(
                f"token id {token_id} is not in the vocabulary of {len(self)} ids; "
                "check that the prompt was made with this model's tokenizer"
            ) from None

    def text_bytes(self, token_id: int) -> bytes:
        """What `token_id` adds to the text shown: nothing if special or not in use."""
        return b"" if token_id in self.special_ids else self._pieces.get(token_id, b"")

    def decode(self, token_ids: Collection[int]) -> str:
        """The text of a whole answer; invalid UTF-8 becomes U+FFFD."""
        return b"".join(map(self.text_bytes, token_ids)).decode("utf-8", errors="replace")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over id (u32-LE), length (u32-LE) and bytes of every id in use, ascending."""
        digest = hashlib.sha256()
        for token_id, piece in self._pieces.items():
            digest.update(struct.pack("<II", token_id, len(piece)))
            digest.update(piece)
        return digest.digest()


def _piece_decoder(decoder: Mapping[str, Any] | None) -> Callable[[str], bytes]:
    kinds = _decoder_kinds(decoder)
    if "ByteLevel" in kinds:
        return _ByteLevel()
    if kinds & {"ByteFallback", "Metaspace"}:
        return _sentencepiece_bytes if "ByteFallback" in kinds else _marked_space_bytes
    raise Unsupported(
        f"tokenizer decoder {sorted(kinds) or 'none'} has no table from id to bytes; "
        "expected ByteLevel, ByteFallback or Metaspace: choose another model",
        reason="TOKENIZER_UNSUPPORTED",
    )


def _decoder_kinds(decoder: Mapping[str, Any] | None) -> set[str]:
    if decoder is None:
        return set()
    nested = decoder.get("decoders") or []
    return {decoder["type"]}.union(*map(_decoder_kinds, nested)) - {"Sequence"}


class _ByteLevel:
    """The reversible map of GPT-2: every byte is one printable character."""

    def __init__(self) -> None:
        plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in plain]
        self._bytes = {chr(byte): byte for byte in plain}
        self._bytes |= {chr(256 + place): byte for place, byte in enumerate(others)}

    def __call__(self, piece: str) -> bytes:
        try:
            return bytes([self._bytes[character] for character in piece])
        except KeyError:  # a piece outside the map stands for itself, as in `tokenizers`
            return piece.encode()


def _marked_space_bytes(piece: str) -> bytes:
    return piece.replace(_SPACE_MARK, " ").encode()


def _sentencepiece_bytes(piece: str) -> bytes:
    match = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(match[1], 16)]) if match else _marked_space_bytes(piece)
