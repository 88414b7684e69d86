"""OpenAI's chat messages as the role and content that a chat template takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segue_device.openai_form.answers import Message
from segue_device.openai_form.fields import Fields, items, text, unsupported, wrong

# A developer message is what a system message was called before; templates know the latter.
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}

_NO_TOOLS = "Segue runs no tools; remove it"
_NO_NAMES = "chat templates have no place for it; put the name into the content"
_TEXT_ONLY = "Segue's models read text only; remove it"


def parse_messages(value: object) -> tuple[Mapping[str, str], ...]:
    """Messages with a role and a text each.

    A message of an earlier answer (:class:`Message`) may be passed as it is.
    The text parts of one message are joined by line breaks. Raises
    InvalidRequest or Unsupported with the field in ``param``.
    """
    messages = items("messages", value)
    if not messages:
        raise wrong("messages", value, "at least one message")
    return tuple(_message(f"messages[{place}]", each) for place, each in enumerate(messages))


def _message(param: str, value: object) -> Mapping[str, str]:
    fields = Fields(value.to_dict() if isinstance(value, Message) else value, param)
    role = fields.text("role")
    if role in ("tool", "function"):
        raise unsupported(fields.path("role"), role, _NO_TOOLS)
    if role not in ROLES:
        raise wrong(fields.path("role"), role, f"one of {', '.join(ROLES)}")
    content = _content(fields.path("content"), fields.take("content"))
    for name in ("tool_calls", "function_call", "tool_call_id"):
        fields.only(name, (), _NO_TOOLS)
    for name in ("audio", "refusal", "annotations"):
        fields.only(name, (), _TEXT_ONLY)
    fields.only("name", (), _NO_NAMES)
    fields.finish()
    return {"role": ROLES[role], "content": content}


def _content(param: str, value: Any) -> str:
    if isinstance(value, str):
        return text(param, value)
    if not isinstance(value, (list, tuple)):
        raise wrong(param, value, "a string or a list of text parts")
    return "\n".join(_part(f"{param}[{place}]", part) for place, part in enumerate(value))


def _part(param: str, value: object) -> str:
    fields = Fields(value, param)
    kind = fields.take("type")
    if kind != "text":
        raise unsupported(f"{param}.type", kind, _TEXT_ONLY)
    content = text(f"{param}.text", fields.take("text"))
    fields.finish()
    return content
