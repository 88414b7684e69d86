"""What the commands print and where: results on stdout, everything else on stderr.

rich decides about colours: none for a pipe, with ``NO_COLOR`` or on a terminal
that has none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

from rich.console import Console
from rich.segment import Segment, Segments

# Ends of lines and tabs are text; any other control character in an answer
# could rewrite the user's screen.
_CONTROLS = dict.fromkeys({*range(32), *range(127, 160)} - {9, 10}, "\N{REPLACEMENT CHARACTER}")

Advance = Callable[[str, float, float | None], None]
"""Called with what is worked on, how much is done, and of how much (None: not known)."""


class Terminal:
    """The two streams of one command."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")  # a pipe may be of another encoding
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(highlight=False, soft_wrap=True, stderr=True)

    def write(self, text: str, style: str = "") -> None:
        """A piece of a result."""
        _put(self.out, text, style)

    def line(self, text: str, style: str = "") -> None:
        """A line of a result."""
        _put(self.out, f"{text}\n", style)

    def json(self, value: Any) -> None:
        """A result for programs, on one line."""
        self.line(json.dumps(value, ensure_ascii=False, allow_nan=False))

    def note(self, text: str, style: str = "dim") -> None:
        """A line beside the result."""
        _put(self.err, f"{text}\n", style)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """A sign of life while something takes its time; on a terminal only."""
        if not self.err.is_terminal:
            yield
            return
        with self.err.status(what):
            yield

    @contextmanager
    def progress(self, *, in_bytes: bool = False) -> Iterator[Advance]:
        """A bar for work that can tell how far it is; on a terminal only."""
        if not self.err.is_terminal:
            yield lambda what, done, total: None
            return
        from rich import progress

        columns = [progress.TextColumn("{task.description}"), progress.BarColumn()]
        if in_bytes:
            columns += [progress.DownloadColumn(), progress.TransferSpeedColumn()]
        columns.append(progress.TimeRemainingColumn())
        with progress.Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            )


def _put(console: Console, text: str, style: str) -> None:
    """As it is where nobody looks; tinted, and nothing but text, on a screen."""
    if not console.is_terminal:
        console.file.write(text)
        console.file.flush()
        return
    shown = Segment(text.translate(_CONTROLS), console.get_style(style))
    console.print(Segments([shown]), end="")
