"""OpenAI's objects from an answer's events, to the letter of the JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from segue_device import Done, FinishReason, Result, Source, Started, Takeover, Token, Usage
from segue_device.openai_form import Outside, parse_chat, parse_completion
from segue_device.openai_form.forms import ChatForm, CompletionForm, Form
from segue_device.timings import measure
from segue_protocol.errors import Cancelled
from segue_protocol.vocabulary import Vocabulary

OUTSIDE = Outside(now_s=lambda: 1_700_000_000.9, new_id=lambda: "7")
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
HEAD = {"id": "chatcmpl-7", "created": 1_700_000_000, "model": "tiny"}
SEPARATOR = "\u2028".encode()
VOCABULARY = Vocabulary(
    {0: b"<|end|>", 1: b"One", 2: SEPARATOR[:1], 3: SEPARATOR[1:] + b"two"}, special_ids=(0,)
)
USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 3,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 2},
    "segue": {
        "cloud_tokens": 1,
        "device_tokens": 2,
        "discarded_tokens": 4,
        "takeover_index": 1,
        "ttft_s": 0.25,
        "seed": 77,
    },
}


def _result(reason: FinishReason = FinishReason.STOP, prompt_tokens: int = 5) -> Result:
    return Result(
        token_ids=(1, 2, 3),
        text="One\u2028two",
        logprobs=None,
        finish_reason=reason,
        seed=77,
        usage=Usage(prompt_tokens, 2, 1, 2, 4),
        timings=measure(0.0, 1.0, [0.25, 0.5, 0.75], [0.2, 0.5, 0.7], 1),
        takeover_index=1,
        min_margin=math.inf,
        cloud=None,
    )


def _chunks(form: Form[Any, Any], result: Result) -> Iterator[dict[str, Any]]:
    events = [
        Started("g", b"", 9, 1, 1),
        Token(0, 1, "One", Source.CLOUD, -0.5),
        Takeover(1, False),
        Token(1, 2, "", Source.DEVICE, -1.0),
        Token(2, 3, "\u2028two", Source.DEVICE),
        Token(3, 0, "", Source.DEVICE, -2.0),
        Done(result),
    ]
    for event in events:
        for chunk in form.chunks(event):
            assert chunk.to_json().isascii()
            yield json.loads(chunk.to_json())


def _chat(**fields: Any) -> ChatForm:
    request = parse_chat({"messages": [{"role": "user", "content": "?"}], **fields})
    return ChatForm(request, OUTSIDE, model="tiny", vocabulary=VOCABULARY)


def _completion(**fields: Any) -> CompletionForm:
    request = parse_completion({"prompt": "?", **fields})
    return CompletionForm(request, OUTSIDE, model="tiny", vocabulary=VOCABULARY)


def test_a_chat_answer_in_chunks() -> None:
    def chunk(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}

    expected = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "One"}),
        chunk({"content": "\u2028two"}),
        chunk({}, "stop"),
    ]
    assert list(_chunks(_chat(stream=True), _result())) == expected
    usage = {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    assert list(_chunks(_chat(**STREAM), _result())) == [*expected, usage]


def test_a_whole_chat_answer() -> None:
    message = {"role": "assistant", "content": "One\u2028two", "refusal": None}
    assert _chat().whole(_result(FinishReason.LENGTH)).to_dict() == {
        **HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "length", "logprobs": None}],
        "usage": USAGE,
    }


def test_a_text_answer() -> None:
    head = {**HEAD, "id": "cmpl-7", "object": "text_completion"}

    def part(text: str, reason: str | None = None) -> dict[str, Any]:
        return {
            **head,
            "choices": [{"index": 0, "text": text, "finish_reason": reason, "logprobs": None}],
        }

    assert list(_chunks(_completion(stream=True), _result())) == [
        part("One"),
        part("\u2028two"),
        part("", "stop"),
    ]
    whole = _completion().whole(_result()).to_dict()
    assert whole == {**part("One\u2028two", "stop"), "usage": USAGE}


def test_the_cloud_counts_a_prompt_that_only_it_can_read() -> None:
    *_, last = _chunks(_chat(**STREAM), _result(prompt_tokens=0))
    assert last["usage"]["prompt_tokens"] == 9


def test_an_empty_answer_still_says_who_speaks() -> None:
    first, last = _chat(stream=True).chunks(Done(_result()))
    assert first.choices[0].delta.role == "assistant"
    assert last.choices[0].finish_reason == "stop"


def test_a_cancelled_answer_has_no_finish_reason() -> None:
    cancelled = _result(FinishReason.CANCELLED)
    with pytest.raises(Cancelled) as raised:
        _chat().whole(cancelled)
    assert raised.value.partial == (1, 2, 3)
    with pytest.raises(Cancelled):
        list(_completion(stream=True).chunks(Done(cancelled)))


def _entry(token: str, logprob: float | None, piece: bytes) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(piece), "top_logprobs": []}


def test_logprobs_of_a_chat_answer() -> None:
    entries = [
        _entry("One", -0.5, b"One"),
        _entry("\ufffd", -1.0, SEPARATOR[:1]),
        _entry("\ufffd\ufffdtwo", None, SEPARATOR[1:] + b"two"),
    ]
    form = _chat(logprobs=True, stream=True)
    chunks = [chunk["choices"][0] for chunk in _chunks(form, _result())]
    told = [chunk["logprobs"]["content"] for chunk in chunks[1:-1]]
    assert told == [[entry] for entry in entries]  # the stop token stands for no text
    assert [chunk["delta"].get("content") for chunk in chunks[1:-1]] == ["One", "", "\u2028two"]
    whole = form.whole(_result()).to_dict()
    assert whole["choices"][0]["logprobs"] == {"content": entries, "refusal": None}


def test_logprobs_of_a_text_answer() -> None:
    form = _completion(logprobs=0)
    list(_chunks(form, _result()))
    assert form.whole(_result()).to_dict()["choices"][0]["logprobs"] == {
        "tokens": ["One", "\ufffd", "\ufffd\ufffdtwo"],
        "token_logprobs": [-0.5, -1.0, None],
        "text_offset": [0, 3, 3],
        "top_logprobs": None,
    }
