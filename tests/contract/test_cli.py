"""The `segue` command on this device alone, with the tiny model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segue_device import Client, Sampling
from segue_device.cli.terminal import Terminal
from segue_device.pull import LISTING_NAME
from tests.processes import TINY, device_model
from tests.segue_command import TIMEOUT_S, interrupt, interruptible, run, run_process
from tests.web_server import Offer, web_server

QUESTION = "Write about the sea."


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory of the test's own, empty."""
    directory = tmp_path / "data"
    monkeypatch.setenv("SEGUE_DATA_DIR", str(directory))
    return directory


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the tiny model to damage."""
    return shutil.copytree(device_model(), tmp_path / "copy")


# ---- the command itself


def test_help_is_quick_to_import() -> None:
    code = (
        "import sys\n"
        "from segue_device.cli import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    for command in ("ask", "chat", "check", "convert", "index", "profile", "pull"):
        assert f"\n  {command} " in done.stdout
    slow = {"numpy", "onnxruntime", "torch", "httpx", "websockets", "jinja2", "tokenizers"}
    assert not slow & set(done.stderr.split())


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from segue_device.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f'error: segue needs {missing}; pip install "segue-device[cli]"\n'


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["ask", "model"],
        ["ask", "model", "question", "--depth", "3"],
        ["ask", "model", "question", "--mode", "everywhere"],
        ["ask", "model", "question", "--max-tokens", "0"],
        ["ask", "model", " "],
        ["sing"],
        ["convert", "a", "b", "--format", "zip"],
    ],
    ids=" ".join,
)
def test_usage_errors(arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    assert "Usage: " in outcome.err


@pytest.mark.parametrize(
    "command", [["ask", "MODEL", "hello"], ["chat", "MODEL"], ["profile", "MODEL"]]
)
def test_errors_are_one_line(command: list[str], tmp_path: Path) -> None:
    outcome = run(*(str(tmp_path / "nowhere") if part == "MODEL" else part for part in command))
    assert outcome.status == 1
    assert outcome.out == ""
    assert re.fullmatch(
        r"error: there is no .*nowhere; expected a converted model.*\n", outcome.err
    )


# ---- ask


def answer_of_the_sdk(**sampling: float) -> str:
    with Client(model=device_model()) as client:
        messages = [{"role": "user", "content": QUESTION}]
        with client.stream(
            messages=messages, max_tokens=12, sampling=Sampling(**sampling)
        ) as answer:
            return answer.final().text


def test_ask_streams_the_answer() -> None:
    asked = ("ask", device_model(), QUESTION, "--max-tokens", "12")
    outcome = run_process(*asked)
    assert outcome.status == 0
    assert outcome.out == answer_of_the_sdk() + "\n"
    assert outcome.err.startswith("12 tokens from the device; prompt of ")
    assert outcome.err.endswith("; cut off at --max-tokens\n")
    assert "\x1b" not in outcome.out + outcome.err


def test_ask_for_the_reason() -> None:
    asked = ("ask", device_model(), QUESTION, "--max-tokens", "2", "--explain")
    assert run(*asked).err.endswith("\nno tuner was asked\n")


def test_ask_from_stdin_with_a_system_message() -> None:
    options = ("--max-tokens", "4", "--system", "Be brief.", "--json")
    piped = run("ask", device_model(), "-", *options, stdin=f"{QUESTION}\n")
    given = run("ask", device_model(), QUESTION, *options)
    assert json.loads(piped.out)["token_ids"] == json.loads(given.out)["token_ids"]
    longer, shorter = (
        json.loads(outcome.out)["usage"]["prompt_tokens"]
        for outcome in (given, run("ask", device_model(), QUESTION, "--max-tokens", "4", "--json"))
    )
    assert longer > shorter


def test_ask_for_json() -> None:
    options = ("--max-tokens", "12", "--temperature", "0.9", "--no-pacing", "--json")
    outcome = run("ask", device_model(), QUESTION, "--seed", "4", *options)
    found = json.loads(outcome.out)
    assert found["text"] == answer_of_the_sdk(temperature=0.9, seed=4)
    assert found["finish_reason"] == "length"
    assert found["usage"]["device_tokens"] == len(found["token_ids"]) == 12
    assert (found["seed"], found["takeover_index"]) == (4, None)
    assert found["ttft_s"] <= found["e2e_s"]
    drawn = json.loads(run("ask", device_model(), QUESTION, *options).out)
    again = run("ask", device_model(), QUESTION, "--seed", str(drawn["seed"]), *options)
    assert json.loads(again.out)["token_ids"] == drawn["token_ids"]


def test_ask_what_cannot_be_had() -> None:
    outcome = run("ask", device_model(), QUESTION, "--mode", "only_in_cloud")
    assert outcome.status == 1
    assert outcome.err.startswith("error: this client has no cloud, which only_in_cloud needs")
    outcome = run("ask", device_model(), QUESTION, "--max-tokens", "99999")
    assert outcome.status == 1
    assert "exceed this device's context" in outcome.err


def test_ctrl_c_ends_an_answer() -> None:
    with interruptible("ask", device_model(), QUESTION, "--max-tokens", "2000") as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        interrupt(process)
        rest, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert first
    assert rest.endswith("\n")
    assert err.endswith("; cancelled\n")
    assert "Traceback" not in err


# ---- chat


def test_chat_in_a_pipe() -> None:
    lines = [
        "/stats",
        QUESTION,
        "",
        "/stats",
        "/sing",
        "/reset",
        QUESTION,
        "/help",
        "/stats",
        "/quit",
        QUESTION,
    ]
    outcome = run_process(
        "chat", device_model(), "--max-tokens", "6", stdin="".join(f"{line}\n" for line in lines)
    )
    assert outcome.status == 0
    answers = outcome.out.splitlines()
    assert len(answers) == 2, "nothing but the answers, and none behind /quit"
    assert answers[0] == answers[1], "a new conversation begins like the first"
    told = outcome.err.splitlines()
    assert told[0] == "no answer yet"
    assert told[1].startswith("6 tokens from the device; prompt of ")
    assert told[2].startswith("1 answers; 0 tokens from the cloud, 6 from the device; ")
    assert told[3] == "there is no /sing; /help lists the commands"
    assert told[4] == "a new conversation"
    assert told[-1].startswith("2 answers; 0 tokens from the cloud, 12 from the device; ")
    assert any(line.startswith("/reset ") for line in told)


def test_chat_remembers_what_was_said() -> None:
    """The second prompt holds the first turn, which the engine does not read again."""
    outcome = run("chat", device_model(), "--max-tokens", "6", stdin=f"{QUESTION}\n{QUESTION}\n")
    assert outcome.status == 0
    first, second = outcome.err.splitlines()
    (prompt,) = re.findall(r"; prompt of (\d+); ", first)
    ((longer, kept),) = re.findall(r"; prompt of (\d+), (\d+) of them kept from the turn", second)
    assert int(longer) > 2 * int(prompt)
    assert int(kept) > int(prompt)


def test_a_turn_that_fails_is_forgotten() -> None:
    long = "sea " * 4000
    outcome = run("chat", device_model(), "--max-tokens", "6", stdin=f"{long}\n{QUESTION}\n")
    assert outcome.status == 1, "a script must see it"
    assert "error: " in outcome.err
    assert "exceed this device's context" in outcome.err
    alone = run("chat", device_model(), "--max-tokens", "6", stdin=f"{QUESTION}\n")
    assert outcome.out == alone.out


def test_ctrl_c_ends_one_answer_of_a_chat() -> None:
    with interruptible("chat", device_model(), "--max-tokens", "2000") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(f"{QUESTION}\n")
        process.stdin.flush()
        process.stdout.read(1)
        interrupt(process)
        assert process.stderr.readline().endswith("; cancelled\n")
        _, err = process.communicate("/stats\n", timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert err.startswith("1 answers; ")


def test_an_answer_cannot_write_on_the_screen_as_it_likes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "a\x1b[2Jb\x07c\r\x9bd\te\n"
    Terminal().write(text)
    assert capsys.readouterr().out == text, "a pipe gets what the model wrote"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    Terminal().write(text)
    assert capsys.readouterr().out == "a\ufffd[2Jb\ufffdc\ufffd\ufffdd\te\n"


# ---- check


def statuses(out: str) -> dict[str, str]:
    """Status by check."""
    lines = [line for line in out.splitlines() if not line.startswith(" ")]
    return {line[6:].partition(":")[0]: line[:6].strip() for line in lines}


def test_check_a_model_that_works() -> None:
    outcome = run_process("check", device_model())
    assert outcome.status == 0
    found = statuses(outcome.out)
    assert list(found) == [
        "files",
        "memory",
        "engine",
        "identity",
        "context",
        "speed",
        "chat template",
        "answer",
        "modes",
    ]
    assert set(found.values()) == {"ok"}
    assert "4096 tokens" in outcome.out
    assert "cloud" not in found


def test_check_for_json() -> None:
    found = json.loads(run("check", device_model(), "--json").out)
    assert found["usable"] is True
    assert found["findings"][0]["check"] == "files"
    assert {finding["status"] for finding in found["findings"]} == {"ok"}


def failed(outcome_of: Path) -> str:
    outcome = run("check", outcome_of)
    assert outcome.status == 1
    assert "fail" in statuses(outcome.out).values()
    return outcome.out


def test_check_what_is_no_model(copy: Path, tmp_path: Path) -> None:
    assert "get one with segue pull" in failed(tmp_path / "nowhere")
    assert "segue convert HF_DIR OUT_DIR" in failed(TINY)
    (copy / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in failed(copy)


def test_check_a_damaged_model(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"no graph")
    out = failed(copy)
    assert statuses(out) == {"files": "ok", "memory": "ok", "engine": "fail", "modes": "fail"}
    assert "ONNX Runtime cannot load" in out


def test_check_without_the_engines_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert 'pip install "segue-device[onnx]"' in failed(device_model())


def test_check_a_model_without_a_template(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    outcome = run("check", copy)
    assert outcome.status == 0
    assert statuses(outcome.out)["chat template"] == "warn"
    assert "no chat template" in outcome.out


# ---- profile


def test_profile_is_measured_and_stored(data: Path) -> None:
    assert "segue profile measures" in run("check", device_model()).out
    outcome = run("profile", device_model(), "--seconds", "0.5", "--json")
    assert outcome.status == 0
    found = json.loads(outcome.out)
    assert Path(found["stored"]).parent == data / "profiles"
    assert found["engine"]["engine"] == "OnnxEngine"
    assert found["profile"]["decode_s"] > 0
    assert len(found["measured"]) >= 2
    assert found["prefill_tokens_per_s"] > 0
    assert found["example"]["cloud_tokens"]["512"] >= 1
    stored = json.loads(Path(found["stored"]).read_text())["profile"]
    assert stored == found["profile"]


def test_profile_in_words(data: Path) -> None:
    outcome = run("profile", device_model(), "--seconds", "0.5")
    assert outcome.status == 0
    assert re.search(r"prefill  P\(n\) = \S+ \+ \S+ n \+ \S+ n\^2 s\n", outcome.out)
    assert re.search(r"fit error \d+\.\d %; \d+ tokens/s at \d+\n", outcome.out)
    assert re.search(r"decode   \S+ ms a token, \d+ tokens/s\n", outcome.out)
    assert re.search(r"tokens wanted for a prompt: \d+ for 512, \d+ for 2048 \(", outcome.out)
    assert f"stored in {data}" in outcome.out


# ---- pull and index


def test_a_model_pulled_from_a_web_server_answers(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    listing = run("index", copy)
    assert listing.out == f"{copy / LISTING_NAME}\n"
    with web_server() as web:
        for path in copy.iterdir():
            web.offers[f"/tiny/{path.name}"] = Offer(path.read_bytes())
        web.offers["/tiny/model.onnx.data"].cuts = [10_000]
        pulled = run_process("pull", f"{web.url}/tiny/{LISTING_NAME}", "--to", tmp_path / "to")
        missing = run("pull", f"{web.url}/nothing.gguf", "--to", tmp_path / "to")
    assert (pulled.status, pulled.err) == (0, "")
    assert pulled.out == f"{tmp_path / 'to' / 'tiny'}\n"
    assert missing.status == 1
    assert missing.err.startswith("error: http://127.0.0.1:")
    outcome = run("ask", tmp_path / "to" / "tiny", QUESTION, "--max-tokens", "12")
    assert outcome.out == answer_of_the_sdk() + "\n"


def test_pull_refuses_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "model.gguf").write_bytes(b"new")
    (tmp_path / "model.gguf").write_bytes(b"old")
    outcome = run("pull", tmp_path / "from" / "model.gguf", "--to", tmp_path)
    assert outcome.status == 1
    assert "--force" in outcome.err
    outcome = run("pull", tmp_path / "from" / "model.gguf", "--to", tmp_path, "--force")
    assert outcome.status == 0
    assert (tmp_path / "model.gguf").read_bytes() == b"new"
