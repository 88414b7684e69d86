"""Messages to prompt ids."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from segue_protocol.errors import InvalidRequest, NotFound, Unsupported
from segue_protocol.tokenizer import ChatTokenizer
from tests.unit.model_directory import write_model

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_model(tmp_path)


def test_special_tokens_are_parsed_and_none_added(directory: Path) -> None:
    tokenizer = ChatTokenizer.from_directory(directory)
    assert tokenizer.encode("hello") == [261]
    assert tokenizer.encode("<|user|>hello<|end|>") == [263, 261, 262]
    assert tokenizer.vocabulary.decode(tokenizer.encode("h\u00e9!")) == "h\u00e9!"


def test_render_and_encode_chat(directory: Path) -> None:
    tokenizer = ChatTokenizer.from_directory(directory)
    assert tokenizer.render(HELLO) == "<s><|user|>hello<|end|><|assistant|>"
    assert tokenizer.render(HELLO, add_generation_prompt=False) == "<s><|user|>hello<|end|>"
    assert tokenizer.encode_chat(HELLO) == [265, 263, 261, 262, 264]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "empty"),
        ([{"role": "user"}], "message 0 has no text under 'content'"),
        ([{"role": "user", "content": 3}], "content"),
        ([{"role": "robot", "content": ""}], "unknown role robot"),
    ],
)
def test_bad_messages_are_refused(directory: Path, messages: list, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        ChatTokenizer.from_directory(directory).render(messages)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content + 1 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_that_fails_or_leaves_the_sandbox(directory: Path, template: str) -> None:
    (directory / "chat_template.jinja").write_text(template)
    with pytest.raises(InvalidRequest, match="template refuses"):
        ChatTokenizer.from_directory(directory).render(HELLO)


def test_templates_may_use_json_and_loop_control(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{{ m | tojson }}{% endfor %}"
    )
    tokenizer = ChatTokenizer.from_directory(directory)
    assert tokenizer.render([{"role": "user", "content": "<\u00e9>"}] * 2) == (
        '{"role": "user", "content": "<\u00e9>"}'
    )


def test_no_template_or_a_broken_one(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(Unsupported, match="Jinja"):
        ChatTokenizer.from_directory(directory)
    (directory / "chat_template.jinja").unlink()
    (directory / "tokenizer_config.json").unlink()
    tokenizer = ChatTokenizer.from_directory(directory)
    assert tokenizer.encode("hello") == [261]
    with pytest.raises(Unsupported, match="no chat template"):
        tokenizer.render(HELLO)


def test_the_default_of_several_templates(directory: Path) -> None:
    (directory / "tokenizer_config.json").write_text(
        '{"chat_template": [{"name": "tools", "template": "t"},'
        ' {"name": "default", "template": "d"}]}'
    )
    assert ChatTokenizer.from_directory(directory).render(HELLO) == "d"


def test_damaged_files_are_named(directory: Path) -> None:
    (directory / "tokenizer.json").write_text(
        '{"model": {"vocab": {}}, "decoder": {"type": "ByteLevel"}}'
    )
    with pytest.raises(InvalidRequest, match=r"tokenizer\.json"):
        ChatTokenizer.from_directory(directory)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(NotFound, match=r"tokenizer\.json"):
        ChatTokenizer.from_directory(directory)


@pytest.mark.parametrize("package", ["tokenizers", "jinja2.sandbox"])
def test_a_missing_library_says_what_to_install(
    directory: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Unsupported, match=r"segue-protocol\[tokenizer\]"):
        ChatTokenizer.from_directory(directory)
