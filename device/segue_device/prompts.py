"""From what an app passes to the prompt of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segue_device.device_model import DeviceModel
from segue_protocol.errors import InvalidRequest, Unsupported

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids, where the device has a model; else the text or messages for the cloud to tokenize.

    `has_history`: an earlier answer is part of it.
    """

    ids: Sequence[int] = ()
    text: str | None = None
    messages: Sequence[tuple[str, str]] = ()
    has_history: bool = False


def read_prompt(
    model: DeviceModel | None,
    messages: Messages | None,
    prompt: str | None,
    prompt_token_ids: Sequence[int] | None,
) -> Prompt:
    """Exactly one of the three. Raises InvalidRequest or Unsupported naming what is wrong."""
    given = [each for each in (messages, prompt, prompt_token_ids) if each is not None]
    if len(given) != 1:
        raise InvalidRequest(
            f"{len(given)} of messages, prompt and prompt_token_ids were given, expected one"
        )
    if not given[0]:
        raise InvalidRequest("the prompt is empty; expected at least one token or message")
    if prompt_token_ids is not None:
        return Prompt(ids=_checked(model, prompt_token_ids))
    texts = [prompt] if prompt is not None else [_field(each, "content") for each in messages or ()]
    for text in texts:
        _require_unicode(text)
    has_history = any(message.get("role") == "assistant" for message in messages or ())
    if model is None:
        pairs = tuple((_field(each, "role"), _field(each, "content")) for each in messages or ())
        return Prompt(text=prompt, messages=pairs, has_history=has_history)
    if model.tokenizer is None:
        raise Unsupported("this device's model has no tokenizer; pass prompt_token_ids")
    if prompt is not None:
        return Prompt(ids=tuple(model.tokenizer.encode(prompt)))
    return Prompt(ids=tuple(model.tokenizer.encode_chat(messages or ())), has_history=has_history)


def common_prefix(model: DeviceModel, messages: Messages) -> Sequence[int]:
    """Ids with which every prompt begins that begins with `messages`.

    Found by rendering two prompts that go on differently, since a template may
    write anything between two messages. Raises as :func:`read_prompt`.
    """
    one, other = (
        read_prompt(model, [*messages, {"role": "user", "content": text}], None, None).ids
        for text in ("0", "a")
    )
    pairs = zip(one, other, strict=False)
    return one[: next((place for place, (a, b) in enumerate(pairs) if a != b), 0)]


def _field(message: Mapping[str, str], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise InvalidRequest(f"a message has no text under {key!r}; expected role and content")
    return value


def _require_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the prompt holds half of a surrogate pair at character {error.start}, which is no "
            "text; repair it where the string was cut"
        ) from None


def _checked(model: DeviceModel | None, ids: Sequence[int]) -> Sequence[int]:
    if model is None:
        raise InvalidRequest(
            "prompt_token_ids need a device model that says which vocabulary they are "
            "from; pass messages or prompt"
        )
    vocab_size = model.identity.vocab_size
    for place, token in enumerate(ids):
        if not 0 <= token < vocab_size:
            raise InvalidRequest(
                f"prompt_token_ids[{place}] is {token}, outside the vocabulary of {vocab_size} ids"
            )
    return tuple(ids)
