"""One answer in a terminal: opened, streamed, cancelled with Ctrl-C, and summed up in words."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from segue_device import (
    Client,
    Credentials,
    FinishReason,
    Pacing,
    Result,
    Source,
    SyncAnswer,
    events,
)
from segue_device.cli.terminal import Terminal

# Sky blue and orange: told apart with any colour vision.
TINTS = {Source.CLOUD: "color(74)", Source.DEVICE: "color(214)"}
TAKEOVER_MARK = "|"
# A longer gap between two tokens is seen.
STALL_S = 0.25


@contextmanager
def open_client(
    terminal: Terminal,
    model: str,
    *,
    cloud: str | None,
    insecure: bool,
    credentials: Credentials,
    unpaced: bool,
) -> Iterator[Client]:
    """A client with its model loaded. Raises what loading raises."""
    pacing = Pacing.off() if unpaced else None
    client = Client(
        model=model, cloud=cloud, insecure=insecure, credentials=credentials, pacing=pacing
    )
    with ExitStack() as held:
        with terminal.working(f"loading {model}"):
            held.enter_context(client)
        yield client


def stream_answer(answer: SyncAnswer, terminal: Terminal, *, tinted: bool = False) -> Result:
    """Write one answer to stdout as it comes; what happened beside it goes to stderr.

    `tinted` shows who wrote: a tint each, and a mark at the takeover, on a
    terminal only. Ctrl-C cancels the answer, which then ends as CANCELLED.
    Raises the answer's error.
    """
    marked = tinted and terminal.out.is_terminal
    notes: list[str] = []
    line_is_open = False
    try:
        with answer, cancelled_by_interrupt(answer.cancel):
            for event in answer:
                if isinstance(event, events.Token) and event.text:
                    terminal.write(event.text, TINTS[event.source] if marked else "")
                    line_is_open = not event.text.endswith("\n")
                elif isinstance(event, events.Takeover) and marked and event.index:
                    terminal.write(TAKEOVER_MARK, "bold")
                else:
                    notes += _notes(event)
            return answer.final()
    finally:
        if line_is_open:
            terminal.write("\n")
        for note in notes:
            terminal.note(note)


def explain_tints(terminal: Terminal) -> None:
    """Who writes in which tint; on a terminal only."""
    if terminal.out.is_terminal:
        terminal.note("the cloud writes like this,", TINTS[Source.CLOUD])
        terminal.note(f"and behind the mark {TAKEOVER_MARK} the device", TINTS[Source.DEVICE])


def collect_answer(answer: SyncAnswer) -> Result:
    """One answer without a word on the way; Ctrl-C as in :func:`stream_answer`."""
    with answer, cancelled_by_interrupt(answer.cancel):
        return answer.final()


@contextmanager
def cancelled_by_interrupt(cancel: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `cancel` once, in a thread of its own; the next one is as before.

    Not in the signal's own frame: that may have stopped this thread while it
    holds a lock that `cancel` waits for.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    thread = threading.Thread(target=cancel)

    def on_interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        thread.start()

    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if thread.ident is not None:
            thread.join()


def summary(result: Result) -> str:
    """Who made how many tokens, and how it felt, in words."""
    usage, timings = result.usage, result.timings
    cloud, device = usage.cloud_tokens, usage.device_tokens
    if cloud and device:
        who = f"{cloud} tokens from the cloud, then {device} from the device"
    else:
        who = f"{cloud or device} tokens from the {'cloud' if cloud else 'device'}"
    parts = [who, f"prompt of {usage.prompt_tokens}"]
    if usage.cached_tokens:
        parts[-1] += f", {usage.cached_tokens} of them kept from the turn before"
    if usage.kept_tokens is not None:
        parts[-1] += f", {usage.kept_tokens} of them kept on the device"
    if timings.ttft_s is not None:
        parts.append(f"first token after {timings.ttft_s:.2f} s")
    if timings.tpot_s is not None:
        parts.append(f"{1 / max(timings.tpot_s, 1e-6):.1f} tokens/s")
        parts.append(f"longest gap {timings.max_gap_s:.2f} s")
        parts.append(f"{timings.stalls(STALL_S)} stalls over {1000 * STALL_S:.0f} ms")
    if result.takeover_index:
        parts.append(f"takeover at token {result.takeover_index}")
    if result.finish_reason is FinishReason.LENGTH:
        parts.append("cut off at --max-tokens")
    elif result.finish_reason is FinishReason.CANCELLED:
        parts.append("cancelled")
    return "; ".join(parts)


def _notes(event: events.Event) -> list[str]:
    """What the user should know of an event that is no text."""
    if isinstance(event, events.Fallback):
        return [f"went on without the other side, which failed: {event.reason}"]
    if isinstance(event, events.Reconnecting):
        return [f"the connection broke and was tried again: {event.reason}"]
    if isinstance(event, events.Warning):
        return [f"warning {event.code}: {event.message}"]
    return []
