"""The user's side of one answer: tokens become events at the pacer's moments."""

from __future__ import annotations

from dataclasses import dataclass, field

from segue_device.pacing import Pacer, PaceView, Pacing
from segue_device.token_log import TokenLog
from segue_protocol.text import TextStream


@dataclass
class Display:
    """A reader of the log with a cursor of its own.

    Text is derived as soon as a token is in the log (a stop string must end the
    answer at once) and shown when the token is due.
    """

    log: TokenLog
    text: TextStream | None
    pacing: Pacing
    shown_s: list[float] = field(default_factory=list)
    shown_text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pacer = Pacer(self.pacing)
        self._pieces: list[str] = []
        self._tail = ""

    @property
    def cursor(self) -> int:
        """Index of the next token to show."""
        return len(self.shown_s)

    @property
    def backlog(self) -> int:
        return len(self.log) - self.cursor

    def derive(self, token_id: int, server_text: str = "") -> bool:
        """Take the newest token's text; True if it completed a stop string.

        Without a vocabulary the text comes from the server.
        """
        if self.text is None:
            self._pieces.append(server_text)
            return False
        self._pieces.append(self.text.push(token_id))
        return self.text.stopped

    def complete(self) -> None:
        """No token follows: release the text that was held back."""
        tail = self.text.flush() if self.text is not None else ""
        if tail and self.backlog and self._pieces:
            self._pieces[-1] += tail
        else:
            self._tail += tail

    def stop_pacing(self) -> None:
        """From now on every token is due at once."""
        self._pacer = Pacer(Pacing.off())

    def due_s(self, view: PaceView, now_s: float) -> float:
        """When the next token may be shown."""
        return self._pacer.due_s(view, now_s)

    def show_next(self, due_s: float, now_s: float) -> str:
        """Show the token at the cursor; returns its text."""
        text = self._pieces[self.cursor]
        self._pacer.shown(due_s, now_s)
        self.shown_s.append(now_s)
        self.shown_text.append(text)
        return text

    def take_tail(self) -> str:
        """Text that became certain only after the last token was shown."""
        tail, self._tail = self._tail, ""
        self.shown_text.append(tail)
        return tail
