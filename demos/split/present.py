"""The demo's face: two colours and a mark at the takeover."""

from __future__ import annotations

import sys
from typing import TextIO

from segue_device import Mode, Result, Source, Token

# Blue and orange are told apart by most colour-blind people.
COLOURS = {Source.CLOUD: "\x1b[38;5;75m", Source.DEVICE: "\x1b[38;5;215m"}
RESET = "\x1b[0m"


class Presenter:
    """Writes to a terminal, or plain text elsewhere."""

    def __init__(self, out: TextIO | None, emulation: str) -> None:
        self._out = out
        self._emulation = emulation
        self._colour = out is not None and out.isatty()

    @classmethod
    def silent(cls) -> Presenter:
        """Writes nothing."""
        return cls(None, "")

    def begin(self, name: str) -> None:
        """A new prompt."""
        self._write(f"\n== {name}\n")

    def mode(self, mode: Mode) -> None:
        """A new run of it."""
        if mode is Mode.SPLIT:
            cloud = self._paint("cloud tokens", Source.CLOUD)
            device = self._paint("device tokens", Source.DEVICE)
            self._write(f"   split ({cloud}, {device}, emulated {self._emulation}):\n")
        else:
            self._write(f"   {mode.value} ...\n")

    def token(self, token: Token) -> None:
        """One shown token."""
        self._write(self._paint(token.text, token.source))

    def takeover(self) -> None:
        """The device writes from here."""
        self._write(" ⇥ " if sys.stdout.encoding.lower().startswith("utf") else " >| ")

    def trouble(self, reason: str) -> None:
        """One side is gone."""
        self._write(f"[{reason}]")

    def end(self, split: Result) -> None:
        """The split answer is over."""
        usage = split.usage
        self._write(f"\n   [{usage.cloud_tokens} cloud + {usage.device_tokens} device tokens]\n")

    def _paint(self, text: str, source: Source) -> str:
        return f"{COLOURS[source]}{text}{RESET}" if self._colour else text

    def _write(self, text: str) -> None:
        if self._out is not None:
            self._out.write(text)
            self._out.flush()
