"""Messages to prompt ids: the only part of the protocol that needs other libraries.

Templates are programs of whoever published the model; they run in jinja2's
immutable sandbox and see no clock, so that a prompt is a function of its
messages.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from segue_protocol.errors import InvalidRequest, Unsupported
from segue_protocol.model_files import read_chat_template, read_json, read_optional_json
from segue_protocol.vocabulary import Vocabulary

if TYPE_CHECKING:
    import jinja2
    import tokenizers


class ChatTokenizer:
    """A model's tokenizer and chat template. Immutable; safe to share between threads."""

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        vocabulary: Vocabulary,
        template: jinja2.Template | None,
        special_tokens: Mapping[str, str],
    ) -> None:
        """`special_tokens` (e.g. bos_token) are handed to the template by name."""
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._template = template
        self._special_tokens = dict(special_tokens)

    @classmethod
    def from_directory(cls, path: str | Path) -> ChatTokenizer:
        """Read tokenizer.json and the chat template of a Hugging Face model directory.

        Raises NotFound or InvalidRequest naming the file, Unsupported when a
        library is missing or the tokenizer or template is of an unknown kind.
        """
        directory = Path(path)
        library = _library("tokenizers")
        spec = read_json(directory, "tokenizer.json")
        vocabulary = Vocabulary.from_tokenizer_json(spec)
        try:
            tokenizer = library.Tokenizer.from_str(json.dumps(spec))
        except Exception as error:  # the library raises nothing more specific
            raise InvalidRequest(
                f"{directory / 'tokenizer.json'} is refused by the tokenizers library: {error}; "
                "download it again or update the library",
                reason="MODEL_FILE_DAMAGED",
            ) from error
        settings = read_optional_json(directory, "tokenizer_config.json")
        source = read_chat_template(directory)
        return cls(
            tokenizer,
            vocabulary,
            None if source is None else _compile(source),
            {name: _content(settings[name]) for name in _TEMPLATE_TOKENS if settings.get(name)},
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """What each id stands for."""
        return self._vocabulary

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens written in it are parsed, none are added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def render(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """The prompt text of `messages`, each with `role` and `content`.

        Raises Unsupported without a template, InvalidRequest when messages
        are malformed or the template refuses them.
        """
        import jinja2

        if self._template is None:
            raise Unsupported(
                "the model has no chat template, expected chat_template.jinja or "
                "tokenizer_config.json with one; add it or send text",
                reason="NO_CHAT_TEMPLATE",
            )
        _check_messages(messages)
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise InvalidRequest(
                f"the chat template refuses these messages: {error}; change roles or their order",
                reason="TEMPLATE_REFUSED",
            ) from error

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Prompt ids of `messages`, ready for the answer's first token; raises as render."""
        return self.encode(self.render(messages))


_TEMPLATE_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unsupported(
            f"tokenizing needs the package {error.name!r}; "
            'run: pip install "segue-protocol[tokenizer]"',
            reason="MISSING_DEPENDENCY",
        ) from error


def _compile(source: str) -> jinja2.Template:
    sandbox = _library("jinja2.sandbox")
    import jinja2

    def raise_exception(message: str) -> NoReturn:
        raise InvalidRequest(
            f"the chat template refuses these messages: {message}; change roles or their order",
            reason="TEMPLATE_REFUSED",
        )

    def tojson(value: Any, indent: int | None = None) -> str:  # jinja2's own escapes for HTML
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment: jinja2.Environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise Unsupported(
            f"the chat template is no Jinja that Segue knows: {error}; use another template",
            reason="TEMPLATE_UNSUPPORTED",
        ) from error


def _content(token: str | Mapping[str, str]) -> str:
    """tokenizer_config.json spells a special token as text or as an object with `content`."""
    return token if isinstance(token, str) else token["content"]


def _check_messages(messages: Sequence[Mapping[str, str]]) -> None:
    if not messages:
        raise InvalidRequest("the list of messages is empty, expected at least one; add one")
    for place, message in enumerate(messages):
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise InvalidRequest(
                    f"message {place} has no text under {key!r}; expected role and content as text"
                )
