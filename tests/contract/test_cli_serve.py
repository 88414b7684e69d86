"""`segue serve` as a process: OpenAI's own client talks to it, a signal ends it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.processes import device_model
from tests.segue_command import TIMEOUT_S, run, serving

QUESTION = "Write about the sea."
KEY = "a key of the test"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    return path


@pytest.fixture
def served(key_file: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The running command, and its address."""
    with serving(device_model(), "--api-key-file", key_file) as running:
        yield running


def test_openai_talks_to_it(served: tuple[subprocess.Popen[str], str]) -> None:
    _, url = served
    with openai.OpenAI(base_url=url, api_key=KEY) as client:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": QUESTION}],
            max_completion_tokens=8,
            temperature=0,
        )
    alone = run("ask", device_model(), QUESTION, "--max-tokens", "8")
    assert alone.out == f"{answer.choices[0].message.content}\n"
    with openai.OpenAI(base_url=url, api_key="another", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(served: tuple[subprocess.Popen[str], str], number: int) -> None:
    process, _ = served
    process.send_signal(number)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert err == ""


def test_what_it_refuses(tmp_path: Path, key_file: Path) -> None:
    outcome = run("serve", device_model(), "--host", "0.0.0.0", "--expose")
    assert outcome.status == 2
    assert "--api-key-file" in outcome.err
    outcome = run("serve", device_model(), "--host", "0.0.0.0", "--api-key-file", key_file)
    assert outcome.status == 2
    assert "add --expose" in outcome.err
    outcome = run("serve", device_model(), "--api-key-file", tmp_path / "none")
    assert outcome.status == 1
    assert outcome.err.startswith("error: ")
    key_file.write_text("")
    outcome = run("serve", device_model(), "--api-key-file", key_file)
    assert outcome.status == 1
    assert "the API key is empty" in outcome.err
