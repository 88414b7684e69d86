"""The answers in OpenAI's shape: what an app reads, and what the server sends as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

FinishReason = Literal["stop", "length"]

# Left out of the JSON where there is nothing to say; other fields are null then.
_OPTIONAL = {"optional": True}


class Wire:
    """What has a JSON form, as the objects of the openai package have."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        plain: dict[str, Any] = {}
        for each in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, each.name)
            if value is not None or "optional" not in each.metadata:
                plain[each.name] = _plain(value)
        return plain

    def to_json(self) -> str:
        """One line of ASCII: some readers of events take U+2028 for a line's end."""
        return json.dumps(self.to_dict(), separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Wire):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return dict(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, slots=True)
class PromptTokensDetails(Wire):
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class SegueUsage(Wire):
    """Segue's own account: who made what. `seed` makes the answer again."""

    cloud_tokens: int
    device_tokens: int
    # Made by the cloud, arrived after the takeover.
    discarded_tokens: int
    takeover_index: int | None
    ttft_s: float | None
    seed: int


@dataclass(frozen=True, slots=True)
class Usage(Wire):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    segue: SegueUsage


@dataclass(frozen=True, slots=True)
class TokenLogprob(Wire):
    """One token. `bytes` may be part of a character; `logprob` is None where nobody told it."""

    token: str
    logprob: float | None
    bytes: Sequence[int]
    top_logprobs: Sequence[None] = ()


@dataclass(frozen=True, slots=True)
class ChatLogprobs(Wire):
    content: Sequence[TokenLogprob]
    refusal: None = None


@dataclass(frozen=True, slots=True)
class CompletionLogprobs(Wire):
    tokens: Sequence[str]
    token_logprobs: Sequence[float | None]
    text_offset: Sequence[int]
    top_logprobs: None = None


@dataclass(frozen=True, slots=True)
class Message(Wire):
    """The model's message."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


@dataclass(frozen=True, slots=True)
class ChatChoice(Wire):
    message: Message
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class ChatCompletion(Wire):
    """A whole chat answer."""

    id: str
    created: int
    model: str
    choices: Sequence[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"


@dataclass(frozen=True, slots=True)
class Delta(Wire):
    """What a chunk adds to the message."""

    content: str | None = field(default=None, metadata=_OPTIONAL)
    role: Literal["assistant"] | None = field(default=None, metadata=_OPTIONAL)


@dataclass(frozen=True, slots=True)
class ChunkChoice(Wire):
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: ChatLogprobs | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class ChatCompletionChunk(Wire):
    """A piece of a chat answer. `usage` comes in a last chunk without choices, if asked for."""

    id: str
    created: int
    model: str
    choices: Sequence[ChunkChoice]
    usage: Usage | None = field(default=None, metadata=_OPTIONAL)
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


@dataclass(frozen=True, slots=True)
class CompletionChoice(Wire):
    text: str
    finish_reason: FinishReason | None = None
    logprobs: CompletionLogprobs | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class Completion(Wire):
    """A whole text answer, or a piece of one: OpenAI gives both one shape."""

    id: str
    created: int
    model: str
    choices: Sequence[CompletionChoice]
    usage: Usage | None = field(default=None, metadata=_OPTIONAL)
    object: Literal["text_completion"] = "text_completion"


@dataclass(frozen=True, slots=True)
class Model(Wire):
    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "segue"


@dataclass(frozen=True, slots=True)
class ModelList(Wire):
    data: Sequence[Model]
    object: Literal["list"] = "list"
