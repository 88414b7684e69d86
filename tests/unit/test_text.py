"""Ids to text: the table, and a stream that never takes a character back."""

from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from segue_protocol.errors import InvalidRequest, Unsupported
from segue_protocol.text import TextStream
from segue_protocol.vocabulary import Vocabulary
from tests.unit.model_directory import byte_level_tokenizer

# One token a byte, two that hold several, one special.
WORDS = (b"ab", "\u00e9\u20ac".encode())
SPECIAL = 300
TABLE = Vocabulary(
    {byte: bytes([byte]) for byte in range(256)}
    | {256 + place: word for place, word in enumerate(WORDS)}
    | {SPECIAL: b"<|end|>"},
    {SPECIAL},
)
PADDING = 999

some_bytes = st.sampled_from([*b"aabbc", 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80])
some_ids = st.lists(some_bytes | st.sampled_from([256, 257, SPECIAL, PADDING]), max_size=30)
some_stops = st.lists(st.text(alphabet="abc\u00e9\ufffd", min_size=1, max_size=4), max_size=4)


def reference(text: str, stops: list[str]) -> tuple[str, bool]:
    """Character by character: the first completed stop string ends it, the longest of several."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(some_ids)
def test_stream_equals_decoding_at_once(ids: list[int]) -> None:
    stream = TextStream(TABLE)
    assert "".join(map(stream.push, ids)) + stream.flush() == TABLE.decode(ids)
    assert not stream.stopped


@given(some_ids, some_stops)
def test_stop_strings_do_not_depend_on_the_cut_into_tokens(
    ids: list[int], stops: list[str]
) -> None:
    stream = TextStream(TABLE, stops)
    text = "".join(map(stream.push, ids)) + stream.flush()
    assert (text, stream.stopped) == reference(TABLE.decode(ids), stops)


@given(some_ids, some_stops)
def test_everything_certain_is_released_at_once(ids: list[int], stops: list[str]) -> None:
    stream, shown = TextStream(TABLE, stops), ""
    for place, token_id in enumerate(ids):
        shown += stream.push(token_id)
        if stream.stopped:
            break
        whole = TABLE.decode(ids[: place + 1])
        held = whole[len(shown) :].rstrip("\ufffd")
        assert held == "" or any(stop.startswith(held[:1]) for stop in stops)


def test_a_character_appears_with_its_last_byte() -> None:
    stream = TextStream(TABLE)
    assert [stream.push(byte) for byte in "a\U0001f600b".encode()] == [
        *("a", "", "", "", "\U0001f600", "b")
    ]


def test_a_stop_string_across_tokens_is_never_shown() -> None:
    stream = TextStream(TABLE, ["END"])
    shown = [stream.push(byte) for byte in b"xENyENDz"]
    assert shown == ["x", "", "", "ENy", "", "", "", ""]
    assert stream.stopped
    assert stream.push(ord("z")) == ""
    assert stream.flush() == ""


def test_flush_releases_a_stop_string_that_was_not_completed() -> None:
    stream = TextStream(TABLE, ["END"])
    assert stream.push(ord("E")) == ""
    assert stream.flush() == "E"
    assert not stream.stopped


def test_specials_and_padding_have_no_text() -> None:
    stream = TextStream(TABLE)
    assert [stream.push(token_id) for token_id in (SPECIAL, PADDING)] == ["", ""]
    assert TABLE.piece(SPECIAL) == b"<|end|>"
    with pytest.raises(InvalidRequest, match="999"):
        TABLE.piece(PADDING)


@pytest.mark.parametrize("stop", [[""], ["x"] * 17, ["x" * 300]])
def test_bad_stop_strings_are_refused(stop: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="stop string"):
        TextStream(TABLE, stop)


# ---- the table ----------------------------------------------------------------


def test_byte_level_table_agrees_with_the_library() -> None:
    spec = byte_level_tokenizer()
    vocabulary = Vocabulary.from_tokenizer_json(spec)
    library = tokenizers.Tokenizer.from_str(json.dumps(spec))
    text = "hello world, h\u00e9llo \u20ac \U0001f600 <think>\n\x00~"
    ids = library.encode(text, add_special_tokens=False).ids
    assert vocabulary.decode(ids) == text == library.decode(ids)
    assert vocabulary.decode([*ids, *vocabulary.special_ids]) == text
    assert sorted(vocabulary) == sorted(library.get_vocab(with_added_tokens=True).values())
    assert {vocabulary.text_bytes(token_id) for token_id in range(256)} == {
        bytes([byte]) for byte in range(256)
    }


def test_sentencepiece_table() -> None:
    decoders = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    spec = {
        "model": {"vocab": {"\u2581the": 0, "<0xC3>": 1, "<0xa9>": 2, "<0x": 3}},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "added_tokens": [{"id": 4, "content": "\u2581s", "special": True}],
    }
    vocabulary = Vocabulary.from_tokenizer_json(spec)
    assert vocabulary.decode([0, 1, 2, 3, 4]) == " the\u00e9<0x"
    assert vocabulary.piece(4) == "\u2581s".encode()


def test_unigram_table() -> None:
    vocab = [["<unk>", 0.0], ["\u2581a", -1.0], ["<0x41>", -2.0]]
    spec = {"model": {"vocab": vocab}, "decoder": {"type": "Metaspace"}}
    assert Vocabulary.from_tokenizer_json(spec).decode([1, 2]) == " a<0x41>"


def test_digest_covers_ids_and_bytes_only() -> None:
    digest = Vocabulary({1: b"a", 2: b"b"}).digest
    assert Vocabulary({2: b"b", 1: b"a"}, {1}).digest == digest
    assert Vocabulary({1: b"a", 3: b"b"}).digest != digest
    assert Vocabulary({1: b"ab", 2: b""}).digest != digest


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(Unsupported, match="decoder none"):
        Vocabulary.from_tokenizer_json({"model": {"vocab": {}}, "decoder": None})
    with pytest.raises(InvalidRequest, match=r"tokenizer\.json"):
        Vocabulary.from_tokenizer_json({"decoder": {"type": "ByteLevel"}})
    with pytest.raises(InvalidRequest, match="special ids"):
        Vocabulary({1: b"a"}, {2})
    with pytest.raises(InvalidRequest, match="token ids"):
        Vocabulary({-1: b"a"})
