"""The demo's face: two colours, a mark at the takeover, one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from segue_device import Mode, Result, Source, Token

if TYPE_CHECKING:
    from demos.split.emulation import Emulation
    from demos.split.runs import Run

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


def table(runs: Sequence[Run], emulation: Emulation) -> str:
    """All runs side by side."""
    profile = emulation.profile
    lines = [
        "",
        f"Emulated device {emulation.name}: {1 / profile.prefill_per_token_s:.0f} prefill tok/s, "
        f"{1 / profile.decode_s:.0f} decode tok/s; emulated network, round trip "
        f"{emulation.network_rtt_s * 1e3:.0f} ms. Times in seconds.",
        "",
        f"{'prompt':<18}{'tokens':>7}{'mode':>13}{'TTFT':>8}{'TPOT':>8}{'max gap':>9}{'E2E':>8}"
        f"{'cloud':>7}{'device':>8}{'N*':>5}  same ids",
    ]
    for run in runs:
        for mode, result in (
            ("device only", run.device_only),
            ("cloud only", run.cloud_only),
            ("split", run.split),
        ):
            times, usage = result.timings, result.usage
            is_split = mode == "split"
            lines.append(
                f"{run.name if mode == 'device only' else '':<18}"
                f"{usage.prompt_tokens if mode == 'device only' else '':>7}{mode:>13}"
                f"{times.ttft_s or 0:>8.3f}{times.tpot_s or 0:>8.3f}{times.max_gap_s:>9.3f}"
                f"{times.e2e_s:>8.2f}{usage.cloud_tokens:>7}{usage.device_tokens:>8}"
                f"{run.n_star if is_split and run.n_star is not None else '':>5}"
                f"  {('yes' if run.identical else 'NO') if is_split else ''}"
            )
    return "\n".join(lines)
