"""OpenAI's parameters in the SDK's terms: nothing is guessed, nothing dropped in silence."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segue_device.modes import Mode
from segue_device.openai_form.fields import (
    Fields,
    integer,
    items,
    text,
    token_ids,
    unsupported,
    wrong,
)
from segue_device.openai_form.messages import parse_messages
from segue_protocol.sampling_options import Sampling

MAX_STOPS = 4
MAX_OUTPUT_TOKENS = 2**31 - 1

# Fields for OpenAI's own books, or for how fast or safe its service works.
_BOOKKEEPING = (
    "metadata",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
_NO_TOOLS = "Segue runs no tools; remove it"
_NO_FORMATS = "Segue does not constrain the text; ask for it in the prompt"
_NO_TUNING = "the model has no such setting; remove it"
_TEXT_ONLY = "Segue's models write text only; remove it"
_CHOSEN_ONLY = "only the chosen token's probability is known; ask for that alone"
_ONE_ANSWER = "a request makes one answer; send several requests"


def _new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Outside:
    """What an answer takes from the world; tests give their own. `now_s` is wall time."""

    now_s: Callable[[], float] = time.time
    new_id: Callable[[], str] = _new_id


@dataclass(frozen=True, slots=True)
class FormRequest:
    """One request. Exactly one of `messages`, `prompt` and `prompt_token_ids` is there.

    `max_tokens` None: as many as fit. `mode` None: the client's. Without a seed
    the client draws one.
    """

    sampling: Sampling
    model: str = ""
    messages: tuple[Mapping[str, str], ...] | None = None
    prompt: str | None = None
    prompt_token_ids: tuple[int, ...] | None = None
    max_tokens: int | None = None
    mode: Mode | None = None
    credit_through: int | None = None
    keep_ratio: float | None = None
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False


def parse_chat(body: object) -> FormRequest:
    """The parameters of `chat.completions.create`.

    Raises InvalidRequest or Unsupported with the parameter in ``param``.
    """
    fields = Fields(body)
    messages = parse_messages(fields.take("messages"))
    for name in ("tools", "functions", "web_search_options"):
        fields.only(name, (), _NO_TOOLS)
    for name in ("tool_choice", "function_call"):
        fields.only(name, ("none",), _NO_TOOLS)
    fields.only("response_format", ({"type": "text"},), _NO_FORMATS)
    fields.only("modalities", (["text"],), _TEXT_ONLY)
    for name in ("audio", "moderation"):
        fields.only(name, (), _TEXT_ONLY)
    for name in ("reasoning_effort", "verbosity"):
        fields.only(name, (), _NO_TUNING)
    logprobs = fields.flag("logprobs")
    fields.only("top_logprobs", (0,), _CHOSEN_ONLY)
    return _finish(fields, {"messages": messages}, logprobs)


def parse_completion(body: object) -> FormRequest:
    """The parameters of `completions.create`; raises as :func:`parse_chat`."""
    fields = Fields(body)
    prompt = _prompt(fields.take("prompt"))
    fields.only("best_of", (1,), _ONE_ANSWER)
    fields.only("echo", (False,), "put the prompt before the answer yourself")
    fields.only("suffix", ("",), "Segue's models write forwards only; remove it")
    logprobs = fields.take("logprobs")
    if logprobs is not None and integer("logprobs", logprobs, 0, 5) > 0:
        raise unsupported("logprobs", logprobs, _CHOSEN_ONLY + ", with 0")
    return _finish(fields, prompt, logprobs is not None)


def _prompt(value: Any) -> dict[str, Any]:
    """A string or a list of ids; also the only one in a list, as OpenAI allows."""
    if isinstance(value, str):
        return {"prompt": text("prompt", value)}
    prompts = items("prompt", value)
    if not prompts:
        raise wrong("prompt", value, "text or token ids")
    if isinstance(prompts[0], (str, list, tuple)):
        if len(prompts) > 1:
            raise unsupported("prompt", value, _ONE_ANSWER)
        return _prompt(prompts[0])
    return {"prompt_token_ids": token_ids("prompt", prompts)}


def _finish(fields: Fields, prompt: Mapping[str, Any], logprobs: bool) -> FormRequest:
    """What both kinds of request share."""
    stream = fields.flag("stream")
    segue = _Segue.parse(fields.take("segue"))
    request = FormRequest(
        **prompt,
        model=fields.text("model") or "",
        max_tokens=_max_tokens(fields),
        sampling=_sampling(fields, segue.sampling),
        mode=segue.mode,
        credit_through=segue.credit_through,
        keep_ratio=segue.keep_ratio,
        stream=stream,
        include_usage=_include_usage(fields, stream),
        logprobs=logprobs,
    )
    fields.only("n", (1,), _ONE_ANSWER)
    fields.ignore(_BOOKKEEPING)
    fields.finish()
    request.sampling.validate()
    return request


def _max_tokens(fields: Fields) -> int | None:
    old = fields.integer("max_tokens", 1, MAX_OUTPUT_TOKENS)
    new = fields.integer("max_completion_tokens", 1, MAX_OUTPUT_TOKENS)
    if None not in (old, new) and old != new:
        raise wrong("max_completion_tokens", new, f"the same as max_tokens, {old}, or one of them")
    return old if new is None else new


def _include_usage(fields: Fields, stream: bool) -> bool:
    value = fields.take("stream_options")
    if value is None:
        return False
    if not stream:
        raise wrong("stream_options", value, "none, as stream is not true")
    options = Fields(value, "stream_options")
    options.ignore(("include_obfuscation",))
    include = options.flag("include_usage")
    options.finish()
    return include


def _sampling(fields: Fields, extra: Mapping[str, Any]) -> Sampling:
    seed = fields.integer("seed", -(2**63))
    return Sampling(
        temperature=fields.number("temperature", 1.0),
        top_p=fields.number("top_p", 1.0),
        presence_penalty=fields.number("presence_penalty", 0.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0),
        logit_bias=_logit_bias(fields.take("logit_bias")),
        # OpenAI's seeds have a sign, Segue's the same 64 bits without one.
        seed=None if seed is None else seed % 2**64,
        stop=_stop(fields.take("stop")),
        **extra,
    )


def _logit_bias(value: object) -> Mapping[int, float]:
    """OpenAI's keys are ids written as text."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise wrong("logit_bias", value, "an object from token id to bias")
    biases: dict[int, float] = {}
    for key, bias in value.items():
        written = int(key) if isinstance(key, str) and key.isdecimal() else key
        token = integer("logit_bias", written, 0, 2**32 - 1)
        if isinstance(bias, bool) or not isinstance(bias, (int, float)):
            raise wrong("logit_bias", bias, "numbers from -100 to 100")
        biases[token] = bias
    return biases


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = items("stop", [value] if isinstance(value, str) else value)
    if len(stops) > MAX_STOPS:
        raise wrong("stop", value, f"{MAX_STOPS} strings at most")
    return tuple(text("stop", each) for each in stops)


@dataclass(frozen=True, slots=True)
class _Segue:
    """The field ``segue``: what OpenAI's interface has no word for.

    ``mode``, ``credit_through``, ``keep_ratio``, and of the sampler ``top_k``, ``min_p``,
    ``repetition_penalty`` and ``stop_token_ids``.
    """

    mode: Mode | None = None
    credit_through: int | None = None
    keep_ratio: float | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, value: object) -> _Segue:
        if value is None:
            return cls()
        fields = Fields(value, "segue")
        found = cls(
            mode=_mode(fields.text("mode")),
            credit_through=fields.integer("credit_through", 1, MAX_OUTPUT_TOKENS),
            keep_ratio=fields.number("keep_ratio", None),
            sampling={
                "top_k": fields.integer("top_k", 0, 2**32 - 1) or 0,
                "min_p": fields.number("min_p", 0.0),
                "repetition_penalty": fields.number("repetition_penalty", 1.0),
                "stop_token_ids": fields.ids("stop_token_ids"),
            },
        )
        fields.finish()
        return found


def _mode(value: str | None) -> Mode | None:
    if value is None:
        return None
    known = [each.value for each in Mode]
    if value not in known:
        raise wrong("segue.mode", value, f"one of {', '.join(known)}")
    return Mode(value)
