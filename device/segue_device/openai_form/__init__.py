"""OpenAI's interface to the SDK: parameters in, OpenAI's objects out."""

from segue_device.openai_form.answers import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    Message,
    Usage,
)
from segue_device.openai_form.client import (
    AsyncChat,
    AsyncChunkStream,
    AsyncCompletions,
)
from segue_device.openai_form.request import FormRequest, Outside, parse_chat, parse_completion
from segue_device.openai_form.sync import Chat, ChunkStream, Completions

__all__ = [
    "AsyncChat",
    "AsyncChunkStream",
    "AsyncCompletions",
    "Chat",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChunkStream",
    "Completion",
    "Completions",
    "FormRequest",
    "Message",
    "Outside",
    "Usage",
    "parse_chat",
    "parse_completion",
]
