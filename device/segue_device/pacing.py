"""The speed controller: a steady reader of an unsteady log.

The cloud's tokens come in bursts, then the device's come slowly. The pacer
shows them at a rate that the device can keep up after the takeover:

- the first token is shown at once;
- while the cloud writes, at the agreed interval (never faster than the device
  will decode, or the buffer would be gone before it is ready);
- before the device is ready, what is left is stretched over the time until it is
  expected, up to just under a visible stall: the hand-over may take longer than
  planned, and a slower token is seen less than a stop;
- after the takeover at ``clamp(device_rate + backlog / horizon)``, so that what
  is buffered is used up smoothly;
- once the end is known, what is left goes out within ``flush_s``.

The rate changes by at most `slew` per `slew_period_s`. Pure step functions:
the caller passes the time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pacing:
    """Settings of the speed controller; `Pacing.off()` shows everything at once."""

    enabled: bool = True
    horizon_s: float = 2.5
    min_rate_tps: float = 2.0
    max_rate_tps: float = 200.0
    slew: float = 0.25
    slew_period_s: float = 0.25
    flush_s: float = 0.25
    # Longest interval that stretching makes: just under a visible stall.
    stretch_s: float = 0.24

    @classmethod
    def off(cls) -> Pacing:
        """No pacing at all."""
        return cls(enabled=False)


@dataclass(frozen=True, slots=True)
class PaceView:
    """What the controller sees. Rates in tokens per second."""

    backlog_tokens: int
    show_interval_s: float
    device_rate_tps: float
    device_writes: bool
    complete: bool
    # Until the next token is expected; 0 while they are coming.
    expected_s: float = 0.0
    cancelled: bool = False


class Pacer:
    """Decides when the next token is due."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._rate_tps: float | None = None
        self._rate_set_s = 0.0
        self._last_s: float | None = None
        self._flush_by_s: float | None = None

    def due_s(self, view: PaceView, now_s: float) -> float:
        """When the next token may be shown; in the past means now."""
        if self._last_s is None or not self._pacing.enabled or view.cancelled:
            return now_s
        interval_s = 1 / self._follow(self._target_tps(view), now_s)
        hold_s = min(view.expected_s / max(1, view.backlog_tokens), self._pacing.stretch_s)
        interval_s = max(interval_s, hold_s)
        if view.complete:
            if self._flush_by_s is None:
                self._flush_by_s = now_s + self._pacing.flush_s
            left_s = max(0.0, self._flush_by_s - self._last_s)
            interval_s = min(interval_s, left_s / max(1, view.backlog_tokens))
        return self._last_s + interval_s

    def shown(self, due_s: float, now_s: float) -> None:
        """A token was shown at `now_s`, having been due at `due_s`.

        A timer that fires late must not slow the pace down, so the next
        interval counts from the due time, unless the token itself came late.
        """
        self._last_s = now_s if self._last_s is None else max(due_s, now_s - MAX_CATCH_UP_S)

    def _target_tps(self, view: PaceView) -> float:
        pacing = self._pacing
        if view.device_writes:
            target = view.device_rate_tps + view.backlog_tokens / pacing.horizon_s
        else:
            target = 1 / view.show_interval_s
        return min(max(target, pacing.min_rate_tps), pacing.max_rate_tps)

    def _follow(self, target_tps: float, now_s: float) -> float:
        if self._rate_tps is None:
            self._rate_tps = target_tps
        else:
            periods = max(0.0, now_s - self._rate_set_s) / self._pacing.slew_period_s
            step = self._rate_tps * self._pacing.slew * periods
            self._rate_tps += min(max(target_tps - self._rate_tps, -step), step)
        self._rate_set_s = now_s
        return self._rate_tps


# How far a late timer may be made up for.
MAX_CATCH_UP_S = 0.02
