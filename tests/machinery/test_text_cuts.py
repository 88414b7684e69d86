"""The text of a split answer, whichever token the device takes over at.

The reference model's ids are given pieces of a chosen text, so that it says
that text cut into tokens as bytes, as a real tokenizer does, or across
characters. What is shown are whole characters (code points; a family of emoji
or a Devanagari cluster may arrive in several steps, as in any streamed text).
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers

from segue_device import AsyncClient, DeviceProfile, Mode, Pacing, Result, Sampling, Token
from segue_protocol.reference import STOP_ID
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.vocabulary import Vocabulary
from tests.faulty_transport import Fault, FaultyTransport
from tests.harness import reference_answer, reference_client, reference_cloud
from tests.virtual_clock import run_virtual

TINY = Path(__file__).parents[2] / "demos" / "model" / "tiny"
PROMPT = "!"
# Slower than the cloud's whole answer, so that every credit is used up.
PROFILE = DeviceProfile(0.5, 0.001, 0.0, 0.01, 0.0)
# No id twice, so that each may stand for a piece of its own.
ONCE = Sampling(repetition_penalty=100.0, logit_bias={STOP_ID: -100.0})

TEXTS = {
    "family": "\U0001f469\u200d\U0001f467\U0001f3fd!",  # joined by ZWJ, with a skin tone
    "thai": "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0e01",  # vowel signs above
    "devanagari": "\u0928\u092e\u0938\u094d\u0924\u0947",  # a conjunct
    "flags": "\U0001f1f3\U0001f1f5\U0001f1f9\U0001f1ed",  # pairs of regional indicators
    "combining": "xe\u0301\u0323o\u0308",
    "cjk": "\u6f22\u5b57, \uac00.",
    # Continuation bytes alone, starts that never end, an overlong form, a surrogate.
    "broken": b"\x80a\xbf\xbf\xe0\xb8b\xf0\x9f\x98c\xc0\xafd\xed\xa0\x80\xf0\x9f\x91",
}


def _by_bytes(text: bytes) -> list[bytes]:
    return [text[place : place + 1] for place in range(len(text))]


def _by_tokenizer(text: bytes) -> list[bytes]:
    tokenizer = ChatTokenizer.from_directory(TINY)
    return [tokenizer.vocabulary.text_bytes(each) for each in tokenizer.encode(text.decode())]


def _across(text: bytes) -> list[bytes]:
    """Pieces of 1, 2, 5 and 7 bytes in turn: ends and starts of characters in one token."""
    ends = [0]
    while ends[-1] < len(text):
        ends.append(ends[-1] + (1, 2, 5, 7)[len(ends) % 4])
    return [text[start:end] for start, end in pairwise(ends)]


@dataclass(frozen=True)
class Script:
    """An answer of the reference model and what its ids stand for."""

    pieces: tuple[bytes, ...]
    ids: tuple[int, ...]
    vocabulary: Vocabulary

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode(errors="replace")

    def certain(self, tokens: int) -> str:
        """The text of the first tokens, without a character that is not complete."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(b"".join(self.pieces[:tokens]))


def _script(pieces: Sequence[bytes]) -> Script:
    ids = reference_answer(tuple(PROMPT.encode()), ONCE, len(pieces)).ids
    assert len(set(ids)) == len(pieces)
    return Script(tuple(pieces), ids, Vocabulary(dict(zip(ids, pieces, strict=True))))


CUTTERS: dict[str, Callable[[bytes], list[bytes]]] = {
    "bytes": _by_bytes,
    "tokenizer": _by_tokenizer,
    "across": _across,
}


@cache
def script(name: str, cutter: str) -> Script:
    text = TEXTS[name]
    return _script(CUTTERS[cutter](text.encode() if isinstance(text, str) else text))


every_script = pytest.mark.parametrize(
    ("name", "cutter"),
    [
        (name, cutter)
        for name in TEXTS
        for cutter in CUTTERS
        if (name, cutter) != ("broken", "tokenizer")  # it takes text only
    ],
)


async def _answer(
    client: AsyncClient, script: Script, credit: int | None = None, stop: Sequence[str] = ()
) -> tuple[list[Token], Result]:
    stream = client.stream(
        prompt=PROMPT if client.model is None else None,
        prompt_token_ids=None if client.model is None else tuple(PROMPT.encode()),
        sampling=replace(ONCE, stop=tuple(stop)),
        max_tokens=len(script.pieces),
        mode=Mode.SPLIT if credit is not None else Mode.ONLY_IN_CLOUD,
        credit_through=credit,
        pacing=Pacing.off(),
    )
    async with stream as answer:
        tokens = [event async for event in answer if isinstance(event, Token)]
        return tokens, await answer.final()


@every_script
def test_whole_characters_at_every_cut(name: str, cutter: str) -> None:
    each = script(name, cutter)

    async def main() -> None:
        async with reference_cloud(step_s=0.001) as cloud:
            async with reference_client(
                cloud.transport(), profile=PROFILE, vocabulary=each.vocabulary
            ) as client:
                for cut in range(1, len(each.pieces) + 1):
                    tokens, result = await _answer(client, each, cut)
                    assert result.token_ids == each.ids
                    assert result.usage.cloud_tokens == cut
                    shown = ""
                    for token in tokens[: len(each.ids) - 1]:
                        shown += token.text
                        assert token.index is not None
                        assert shown == each.certain(token.index + 1), f"cut at {cut}"
                    assert result.text == "".join(token.text for token in tokens) == each.text
                    assert ("\ufffd" in result.text) == (name == "broken")

    run_virtual(main())


STOPS = (
    ("family", "\u200d\U0001f467"),
    ("family", "\U0001f3fd"),
    ("thai", "\u0e31\u0e2a"),  # begins with a vowel sign
    ("devanagari", "\u094d"),  # the middle of a conjunct
    ("flags", "\U0001f1f5\U0001f1f9"),  # the end of one flag and the start of the next
    ("combining", "\u0301"),
    ("cjk", "\u5b57, "),
    ("cjk", "\uac00."),  # ends with the answer
    ("broken", "\ufffdb"),
)
every_stop = pytest.mark.parametrize(("name", "stop"), STOPS, ids=ascii)


def _tokens_until(script: Script, stop: str) -> int:
    """How many tokens complete the stop string."""
    return next(n for n in range(1, len(script.ids) + 1) if stop in script.certain(n))


@every_stop
@pytest.mark.parametrize("cutter", ["bytes", "across"])
def test_a_stop_string_at_every_cut(name: str, stop: str, cutter: str) -> None:
    each = script(name, cutter)
    length, text = _tokens_until(each, stop), each.text[: each.text.index(stop)]

    async def main() -> None:
        async with reference_cloud(step_s=0.001) as cloud:
            async with reference_client(
                cloud.transport(), profile=PROFILE, vocabulary=each.vocabulary
            ) as client:
                for cut in range(1, min(length + 2, len(each.ids) + 1)):
                    tokens, result = await _answer(client, each, cut, [stop])
                    assert result.token_ids == each.ids[:length], f"cut at {cut}"
                    assert result.text == "".join(token.text for token in tokens) == text
                    assert (result.takeover_index is None) == (cut >= length)

    run_virtual(main())


# ---- a client without a model: the text is made in the cloud


def _one_word_tokenizer(vocabulary: Vocabulary) -> ChatTokenizer:
    """Knows the prompt; decodes with `vocabulary`."""
    words = tokenizers.models.WordLevel(vocab={PROMPT: ord(PROMPT)}, unk_token=PROMPT)
    return ChatTokenizer(tokenizers.Tokenizer(words), vocabulary, None, {})


async def _text_from_the_cloud(
    script: Script, faults: Sequence[Fault], stop: Sequence[str] = ()
) -> tuple[str, Result]:
    tokenizer = _one_word_tokenizer(script.vocabulary)
    async with reference_cloud(step_s=0.02, tokenizer=tokenizer) as cloud:
        transport = FaultyTransport(cloud.transport(), faults)
        async with AsyncClient(cloud=transport) as client:
            tokens, result = await _answer(client, script, stop=stop)
    return "".join(token.text for token in tokens), result


@every_script
def test_the_text_of_the_cloud_when_the_stream_drops_at_every_token(name: str, cutter: str) -> None:
    each = script(name, cutter)
    for dropped_after in range(1, len(each.ids) + 2):
        run = _text_from_the_cloud(each, [Fault(responses=dropped_after)] * 2)
        shown, result = run_virtual(run)
        assert result.token_ids == each.ids
        assert shown == result.text == each.text, f"dropped after {dropped_after} responses"


@every_stop
def test_a_stop_string_looked_for_in_the_cloud(name: str, stop: str) -> None:
    each = script(name, "bytes")
    length = _tokens_until(each, stop)
    for dropped_after in range(1, length + 2):
        run = _text_from_the_cloud(each, [Fault(responses=dropped_after)], [stop])
        shown, result = run_virtual(run)
        assert result.token_ids == each.ids[:length]
        assert shown == result.text == each.text[: each.text.index(stop)]


@pytest.mark.parametrize("from_the_cloud", [False, True])
def test_what_was_held_back_is_shown_at_the_limit(from_the_cloud: bool) -> None:
    """The last token could begin a stop string, or a character: nothing of it is lost."""
    for length in range(1, 26):
        each = _script(_by_bytes(("EN\u6f22" * 5).encode())[:length])
        stop = ["END", "\u6f22E\u6f22"]

        async def split(each: Script, stop: Sequence[str]) -> tuple[str, Result]:
            async with reference_cloud(step_s=0.02) as cloud:
                async with reference_client(
                    cloud.transport(), profile=PROFILE, vocabulary=each.vocabulary
                ) as client:
                    tokens, result = await _answer(client, each, 1 + len(each.ids) // 2, stop)
            return "".join(token.text for token in tokens), result

        run = _text_from_the_cloud(each, [], stop) if from_the_cloud else split(each, stop)
        shown, result = run_virtual(run)
        assert shown == result.text == each.text, f"{length} tokens"
