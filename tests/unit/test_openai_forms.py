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

OUTSIDE = Outside(now_s=lambda: 1_700_000_000.9, new_id=lambda: "7", new_seed=lambda: 77)
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
HEAD = {"id": "chatcmpl-7", "created": 1_700_000_000, "model": "tiny"}
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
        finish_reason=reason,
        usage=Usage(prompt_tokens, 2, 1, 2, 4),
        timings=measure(0.0, 1.0, [0.25, 0.5, 0.75], [0.2, 0.5, 0.7], 1),
        takeover_index=1,
        min_margin=math.inf,
        cloud=None,
    )


def _chunks(form: Form[Any, Any], result: Result) -> Iterator[dict[str, Any]]:
    events = [
        Started("g", b"", 9, 1, 1),
        Token(0, 1, "One", Source.CLOUD),
        Takeover(1, False),
        Token(1, 2, "", Source.DEVICE),
        Token(2, 3, "\u2028two", Source.DEVICE),
        Done(result),
    ]
    for event in events:
        for chunk in form.chunks(event):
            assert chunk.to_json().isascii()
            yield json.loads(chunk.to_json())


def _chat(**fields: Any) -> ChatForm:
    request = parse_chat({"messages": [{"role": "user", "content": "?"}], **fields}, OUTSIDE)
    return ChatForm(request, OUTSIDE, model="tiny")


def _completion(**fields: Any) -> CompletionForm:
    return CompletionForm(
        parse_completion({"prompt": "?", **fields}, OUTSIDE), OUTSIDE, model="tiny"
    )


def test_a_chat_answer_in_chunks() -> None:
    def chunk(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
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
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": USAGE,
    }


def test_a_text_answer() -> None:
    head = {**HEAD, "id": "cmpl-7", "object": "text_completion"}

    def part(text: str, reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "text": text, "finish_reason": reason}]}

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
