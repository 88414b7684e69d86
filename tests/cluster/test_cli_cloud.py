"""The `segue` command beside a real cluster."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from demos.cluster import Cluster
from segue_device import DeviceProfile
from segue_device.engines import ThrottledEngine, load_engine
from segue_device.profile_store import DIRECTORY_VARIABLE
from tests.processes import device_model
from tests.segue_command import run, run_process

QUESTION = "Write about the sea. " * 40
SAMPLING = ("--temperature", "0.9", "--seed", "4")
LIMIT = ("--max-tokens", "80")


@pytest.fixture
def slow_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Emulated: as it is, this model is ready before any cloud's first token."""
    profile = DeviceProfile(0.0, 1 / 250, 0.0, 0.02, 0.02)
    monkeypatch.setattr(
        "segue_device.device_model.load_engine",
        lambda path, **options: ThrottledEngine(load_engine(path, **options), profile),
    )
    # As if it had been measured in peace before; what it learns is for no other test.
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "data"))
    monkeypatch.setattr("segue_device.device_model.find_profile", lambda key: profile)


@pytest.fixture
def other_vocabulary(tmp_path: Path) -> Path:
    """The tiny model with a tokenizer of the same ids that stand for other bytes."""
    copy = shutil.copytree(device_model(), tmp_path / "copy")
    path = copy / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocab = tokenizer["model"]["vocab"]
    (first, a), (second, b) = list(vocab.items())[-2:]
    vocab[first], vocab[second] = b, a
    path.write_text(json.dumps(tokenizer))
    return copy


def test_ask_is_answered_in_the_cloud(cluster: Cluster) -> None:
    asked = ("ask", device_model(), QUESTION, *SAMPLING, *LIMIT, "--cloud", cluster.address)
    outcome = run_process(*asked, "--mode", "only_in_cloud")
    assert outcome.status == 0, outcome.err
    assert " tokens from the cloud; prompt of " in outcome.err
    assert run(*asked, "--mode", "only_on_device").out == outcome.out


@pytest.mark.usefixtures("slow_device")
def test_ask_is_answered_by_both(cluster: Cluster) -> None:
    asked = ("ask", device_model(), QUESTION, *SAMPLING, *LIMIT, "--cloud", cluster.websocket_url)
    found = json.loads(run(*asked, "--json").out)
    usage = found["usage"]
    assert usage["cloud_tokens"] > 0
    assert usage["device_tokens"] > 0
    assert usage["cloud_tokens"] + usage["device_tokens"] == len(found["token_ids"])
    assert found["takeover_index"] == usage["cloud_tokens"]
    split = run(*asked)
    assert split.out == found["text"] + "\n"
    assert " tokens from the cloud, then " in split.err
    assert "; takeover at token " in split.err


def test_ask_goes_on_when_nobody_is_there() -> None:
    outcome = run("ask", device_model(), QUESTION, *LIMIT, "--cloud", "127.0.0.1:9")
    assert outcome.status == 0
    assert " tokens from the device; " in outcome.err
    outcome = run(
        "ask", device_model(), QUESTION, "--cloud", "127.0.0.1:9", "--mode", "only_in_cloud"
    )
    assert outcome.status == 1
    assert outcome.err.startswith("error: ")


@pytest.mark.usefixtures("slow_device")
def test_chat_shows_who_writes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("chat", device_model(), *SAMPLING, *LIMIT, "--cloud", cluster.address)
    piped = run(*asked, stdin=f"{QUESTION}\n")
    assert piped.status == 0
    assert "\x1b" not in piped.out + piped.err
    assert "|" not in piped.out
    figures = (
        r"\d+ tokens from the cloud, then \d+ from the device; prompt of \d+; first token after "
        r"\S+ s; \S+ tokens/s; longest gap \S+ s; \d+ stalls over 250 ms; takeover at token \d+"
    )
    assert re.match(figures, piped.err)

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "")
    monkeypatch.setenv("TERM", "xterm-256color")
    tinted = run(*asked, stdin=f"{QUESTION}\n")
    assert "\x1b[38;5;74mthe cloud writes like this," in tinted.err
    assert "\x1b[38;5;214mand behind the mark | the device" in tinted.err
    cloud, mark, device = tinted.out.partition("\x1b[1m|\x1b[0m")
    assert mark
    assert "\x1b[38;5;74m" in cloud
    assert "\x1b[38;5;214m" not in cloud
    assert "\x1b[38;5;214m" in device
    assert "\x1b[38;5;74m" not in device

    monkeypatch.setenv("NO_COLOR", "1")
    plain = run(*asked, stdin=f"{QUESTION}\n").out
    assert "\x1b[38" not in plain
    assert "|" in plain


def test_check_with_a_cloud(cluster: Cluster) -> None:
    outcome = run("check", device_model(), "--cloud", cluster.address)
    assert outcome.status == 0
    assert f"ok    cloud: {cluster.address} runs tiny, " in outcome.out
    assert "the same tokens; exactness level 2" in outcome.out
    assert (
        "cloud, then device: split; device alone: prefer_on_device, only_on_device; "
        "cloud, device in reserve: prefer_in_cloud; cloud alone: only_in_cloud"
    ) in outcome.out


def test_check_names_what_differs_from_the_cloud(cluster: Cluster, other_vocabulary: Path) -> None:
    outcome = run("check", other_vocabulary, "--cloud", cluster.websocket_url)
    assert outcome.status == 1
    assert "fail  identity with the cloud: vocabulary differs: 'tiny' has " in outcome.out
    assert "not to be had: only_in_cloud" in outcome.out


def test_check_with_nobody_there(cluster: Cluster) -> None:
    outcome = run("check", device_model(), "--cloud", "127.0.0.1:9", "--json")
    assert outcome.status == 1
    found = {each["check"]: each for each in json.loads(outcome.out)["findings"]}
    assert found["answer"]["status"] == "ok"
    assert found["cloud"]["status"] == "fail"
    assert found["modes"]["status"] == "ok"
    outcome = run("check", device_model(), "--cloud", "http://127.0.0.1")
    assert "expected host:port, grpc://host:port, ws:// or wss://" in outcome.out
