"""``segue chat``: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from segue_device.cli import options
from segue_device.cli.failures import ERROR, report, reports_errors
from segue_device.cli.terminal import Terminal
from segue_device.modes import Mode
from segue_protocol.errors import SegueError

if TYPE_CHECKING:
    from segue_device import Client, Result

HELP = """\
/reset  begin a new conversation
/stats  figures of all answers so far
/quit   leave (so does the end of input)
/help   this list
Ctrl-C ends the answer that is being written."""


@reports_errors
def chat(
    model: options.Model,
    cloud: options.Cloud = None,
    mode: options.ModeOption = Mode.SPLIT,
    max_tokens: options.MaxTokens = options.MAX_TOKENS,
    temperature: options.Temperature = 0.0,
    seed: options.Seed = None,
    system: options.System = None,
    unpaced: options.Unpaced = False,
    insecure: options.Insecure = False,
    token_file: options.TokenFile = None,
    ca: options.Authority = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
) -> None:
    """Talk with the model; a turn prefills only what is new."""
    from segue_device import Sampling
    from segue_device.cli import answering

    terminal = Terminal()
    settings = {
        "system": system,
        "max_tokens": max_tokens,
        "sampling": Sampling(temperature=temperature, seed=seed),
        "mode": mode,
    }
    with answering.open_client(
        terminal,
        model,
        cloud=cloud,
        insecure=insecure,
        credentials=options.credentials(token_file, ca, certificate, key),
        unpaced=unpaced,
    ) as client:
        failed = Conversation(client, terminal, settings).run()
    if failed and not sys.stdin.isatty():
        raise typer.Exit(ERROR)


@dataclass
class Conversation:
    """One session after another, and what their answers were like."""

    client: Client
    terminal: Terminal
    settings: dict[str, Any]
    results: list[Result] = field(default_factory=list)
    failed: bool = False

    def run(self) -> bool:
        """Read and answer until the end; whether an answer failed."""
        from segue_device.cli import answering

        self._session = self.client.session(**self.settings)
        answering.explain_tints(self.terminal)
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (gives input() a line editor)
            self.terminal.note("/help lists the commands, /quit leaves")
        while (line := self._read()) is not None:
            words = line.strip()
            if words == "/quit":
                break
            if words.startswith("/"):
                self._obey(words)
            elif words:
                self._answer(line)
        return self.failed

    def _read(self) -> str | None:
        """The next line, None at the end of input."""
        interactive = sys.stdin.isatty()
        try:
            return input("> " if interactive else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not interactive:
                raise
            self.terminal.note("\n/quit leaves")
            return ""

    def _obey(self, command: str) -> None:
        if command == "/reset":
            self._session = self.client.session(**self.settings)
            self.terminal.note("a new conversation")
        elif command == "/stats":
            self.terminal.note(_stats(self.results))
        elif command == "/help":
            self.terminal.note(HELP)
        else:
            self.terminal.note(f"there is no {command}; /help lists the commands")

    def _answer(self, text: str) -> None:
        """One turn. A turn that failed is not part of the conversation."""
        from segue_device.cli import answering

        try:
            answer = self._session.stream(text)
            result = answering.stream_answer(answer, self.terminal, tinted=True)
        except SegueError as error:
            self.failed = True
            report(error.message)
            return
        self.results.append(result)
        self.terminal.note(answering.summary(result))


def _stats(results: list[Result]) -> str:
    """Figures over several answers."""
    from segue_device.cli.answering import STALL_S

    if not results:
        return "no answer yet"
    first_s = [each.timings.ttft_s for each in results if each.timings.ttft_s is not None]
    cloud = sum(each.usage.cloud_tokens for each in results)
    device = sum(each.usage.device_tokens for each in results)
    parts = [f"{len(results)} answers", f"{cloud} tokens from the cloud, {device} from the device"]
    if first_s:
        parts.append(f"first token after {sum(first_s) / len(first_s):.2f} s on average")
    parts.append(f"longest gap {max(each.timings.max_gap_s for each in results):.2f} s")
    stalls = sum(each.timings.stalls(STALL_S) for each in results)
    parts.append(f"{stalls} stalls over {1000 * STALL_S:.0f} ms")
    return "; ".join(parts)
