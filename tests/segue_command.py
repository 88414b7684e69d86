"""The `segue` command for tests: in this process where that is quicker, else in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from segue_device.cli.app import app

TIMEOUT_S = 60.0

# As from a shell's foreground; a test run in the background may have it ignored.
_WITH_SIGINT = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from segue_device.cli import main; main()"
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


def run(*arguments: str | Path, stdin: str = "") -> Outcome:
    """Run a command in this process, its streams caught."""
    done = CliRunner().invoke(app, [str(each) for each in arguments], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Outcome(done.exit_code, done.stdout, done.stderr)


def run_process(
    *arguments: str | Path, stdin: str = "", environment: dict[str, str] | None = None
) -> Outcome:
    """Run a command as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "segue_device.cli", *map(str, arguments)],
        input=stdin,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextmanager
def interruptible(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A running command that takes Ctrl-C; ended on the way out if it has not."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_SIGINT, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `segue serve` on a free port, and the base URL it printed."""
    with interruptible("serve", *arguments, "--port", "0") as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:2] == ["listening", "on"]
        yield process, words[2]


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)
