"""OpenAI's parameters: what is taken, what is refused, and under which name."""

from __future__ import annotations

from typing import Any

import pytest

from segue_device import Mode, Sampling
from segue_device.openai_form import FormRequest, Message, parse_chat, parse_completion
from segue_protocol.errors import InvalidRequest, SegueError, Unsupported

USER = {"role": "user", "content": "Hello"}


def _chat(**fields: Any) -> FormRequest:
    return parse_chat({"messages": [USER], **fields})


def _completion(**fields: Any) -> FormRequest:
    return parse_completion({"prompt": "Hello", **fields})


def test_defaults_are_openais() -> None:
    assert _chat() == FormRequest(messages=(USER,), sampling=Sampling(temperature=1.0, top_p=1.0))


def test_everything_at_once() -> None:
    request = _chat(
        model="tiny",
        max_completion_tokens=9,
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        seed=-1,
        stop=["a", "b"],
        presence_penalty=1,
        frequency_penalty=-1,
        logit_bias={"5": -100, 6: 2.5},
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
        segue={
            "mode": "prefer_on_device",
            "credit_through": 8,
            "keep_ratio": 0.5,
            "top_k": 40,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "stop_token_ids": [3],
        },
    )
    assert request == FormRequest(
        model="tiny",
        messages=(USER,),
        max_tokens=9,
        mode=Mode.PREFER_ON_DEVICE,
        credit_through=8,
        keep_ratio=0.5,
        stream=True,
        include_usage=True,
        sampling=Sampling(
            temperature=0.5,
            top_k=40,
            top_p=0.9,
            min_p=0.1,
            repetition_penalty=1.1,
            presence_penalty=1,
            frequency_penalty=-1,
            logit_bias={5: -100, 6: 2.5},
            seed=2**64 - 1,
            stop_token_ids=(3,),
            stop=("a", "b"),
        ),
    )


def test_what_changes_nothing_is_accepted() -> None:
    assert _chat() == _chat(
        **{"n": 1, "tools": [], "tool_choice": "none", "functions": None, "function_call": "none"},
        **{"response_format": {"type": "text"}, "modalities": ["text"], "logprobs": False},
        **{"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        **{"parallel_tool_calls": True, "prompt_cache_key": "k", "safety_identifier": "s"},
        **{"stop": None, "seed": None, "stream": False, "max_tokens": None, "top_logprobs": 0},
    )
    assert _completion(logprobs=0).logprobs
    assert _chat(logprobs=True, top_logprobs=0).logprobs
    assert _completion() == _completion(best_of=1, echo=False, suffix=None, logprobs=None)


def test_messages() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    earlier = {"role": "assistant", "content": "Hi", "refusal": None, "tool_calls": None}
    request = parse_chat(
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": parts},
                earlier,
                Message("Hi"),
            ]
        }
    )
    assert request.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": "Hi"},
        {"role": "assistant", "content": "Hi"},
    )


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hi", ("Hi", None)),
        (["Hi"], ("Hi", None)),
        ([1, 2], (None, (1, 2))),
        ([[1, 2]], (None, (1, 2))),
    ],
)
def test_prompts(prompt: Any, expected: Any) -> None:
    request = _completion(prompt=prompt)
    assert (request.prompt, request.prompt_token_ids) == expected


@pytest.mark.parametrize(
    ("fields", "param", "kind"),
    [
        ({"messages": []}, "messages", InvalidRequest),
        ({"messages": "Hello"}, "messages", InvalidRequest),
        ({"messages": ["Hello"]}, "messages[0]", InvalidRequest),
        ({"messages": [{"role": "user"}]}, "messages[0].content", InvalidRequest),
        ({"messages": [{"role": "king", "content": ""}]}, "messages[0].role", InvalidRequest),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages[0].role", Unsupported),
        ({"messages": [USER | {"name": "Ada"}]}, "messages[0].name", Unsupported),
        ({"messages": [USER | {"tool_calls": [{}]}]}, "messages[0].tool_calls", Unsupported),
        ({"messages": [USER | {"mood": "good"}]}, "messages[0].mood", InvalidRequest),
        (
            {"messages": [USER, {"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[1].content[0].type",
            Unsupported,
        ),
        (
            {"messages": [{"role": "user", "content": "\ud800"}]},
            "messages[0].content",
            InvalidRequest,
        ),
        ({"tools": [{"type": "function"}]}, "tools", Unsupported),
        ({"tool_choice": "auto"}, "tool_choice", Unsupported),
        ({"functions": [{}]}, "functions", Unsupported),
        ({"response_format": {"type": "json_schema"}}, "response_format", Unsupported),
        ({"reasoning_effort": "high"}, "reasoning_effort", Unsupported),
        ({"modalities": ["text", "audio"]}, "modalities", Unsupported),
        ({"n": 2}, "n", Unsupported),
        ({"n": True}, "n", Unsupported),
        ({"logprobs": 1}, "logprobs", InvalidRequest),
        ({"logprobs": True, "top_logprobs": 2}, "top_logprobs", Unsupported),
        ({"stream": 1}, "stream", InvalidRequest),
        ({"stream_options": {"include_usage": True}}, "stream_options", InvalidRequest),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", InvalidRequest),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_completion_tokens", InvalidRequest),
        ({"max_tokens": 1.5}, "max_tokens", InvalidRequest),
        ({"max_tokens": True}, "max_tokens", InvalidRequest),
        ({"temperature": "hot"}, "temperature", InvalidRequest),
        ({"temperature": float("nan")}, "temperature", InvalidRequest),
        ({"top_p": 1.5}, "top_p", InvalidRequest),
        ({"presence_penalty": 3}, "presence_penalty", InvalidRequest),
        ({"seed": 2**64}, "seed", InvalidRequest),
        ({"stop": ["a"] * 5}, "stop", InvalidRequest),
        ({"stop": ""}, "stop", InvalidRequest),
        ({"stop": 0}, "stop", InvalidRequest),
        ({"logit_bias": {"a": 1}}, "logit_bias", InvalidRequest),
        ({"logit_bias": {"1": "1"}}, "logit_bias", InvalidRequest),
        ({"logit_bias": {"1": 101}}, "logit_bias", InvalidRequest),
        ({"model": 4}, "model", InvalidRequest),
        ({"guided_json": None}, "guided_json", InvalidRequest),
        ({"segue": "split"}, "segue", InvalidRequest),
        ({"segue": {"mode": "quick"}}, "segue.mode", InvalidRequest),
        ({"segue": {"speed": 2}}, "segue.speed", InvalidRequest),
        ({"segue": {"top_k": -1}}, "segue.top_k", InvalidRequest),
    ],
)
def test_chat_refusals_name_the_parameter(
    fields: dict[str, Any], param: str, kind: type[SegueError]
) -> None:
    with pytest.raises(kind) as refused:
        _chat(**fields)
    assert refused.value.param == param
    assert param.rpartition(".")[2] in refused.value.message


@pytest.mark.parametrize(
    ("fields", "param", "kind"),
    [
        ({"prompt": None}, "prompt", InvalidRequest),
        ({"prompt": []}, "prompt", InvalidRequest),
        ({"prompt": ["a", "b"]}, "prompt", Unsupported),
        ({"prompt": [1, "b"]}, "prompt", InvalidRequest),
        ({"prompt": [-1]}, "prompt", InvalidRequest),
        ({"echo": True}, "echo", Unsupported),
        ({"best_of": 3}, "best_of", Unsupported),
        ({"logprobs": 1}, "logprobs", Unsupported),
        ({"logprobs": True}, "logprobs", InvalidRequest),
        ({"suffix": "end"}, "suffix", Unsupported),
        ({"messages": [USER]}, "messages", InvalidRequest),
    ],
)
def test_completion_refusals_name_the_parameter(
    fields: dict[str, Any], param: str, kind: type[SegueError]
) -> None:
    with pytest.raises(kind) as refused:
        _completion(**fields)
    assert refused.value.param == param


def test_a_body_is_an_object() -> None:
    with pytest.raises(InvalidRequest, match="object"):
        parse_chat([USER])
