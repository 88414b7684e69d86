"""How long a device tries to get its stream back."""

from __future__ import annotations

from segue_protocol.errors import SegueError, Unavailable

# Between two tries; the last one repeats until the limit.
DELAYS_S = (0.1, 0.2, 0.4, 0.8)
LIMIT_S = 10.0


class Reconnect:
    """One loss of the stream: its cause, the tries so far, the end of patience."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self.cause: SegueError = Unavailable("no stream has broken yet")
        self.restart(0.0)

    def begin(self, cause: SegueError, now_s: float) -> None:
        """The stream has broken."""
        self.cause = cause
        self.restart(now_s)

    def restart(self, now_s: float) -> None:
        """Patience begins anew."""
        self._tries = 0
        self._give_up_s = now_s + self._limit_s

    def next_delay_s(self, now_s: float) -> float | None:
        """Seconds until the next try; None for no more."""
        if now_s >= self._give_up_s:
            return None
        delay_s = DELAYS_S[min(self._tries, len(DELAYS_S) - 1)]
        self._tries += 1
        return delay_s
