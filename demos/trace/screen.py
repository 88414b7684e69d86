"""What the user sees: the SDK's pacer over tokens as they arrive."""

from __future__ import annotations

from collections.abc import Sequence

from segue_device.decode_clock import DecodeClock
from segue_device.pacing import Pacer, PaceView, Pacing


class Screen:
    """Shows tokens when the pacer lets them; `received_s` are arrivals, in order."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.shown_s: list[float] = []
        self._pacer = Pacer(Pacing())

    @property
    def shown(self) -> int:
        return len(self.shown_s)

    def poll(self, view: PaceView, now_s: float) -> float:
        """Show the next token if it is due; when it is, or was, due."""
        due_s = self._pacer.due_s(view, now_s)
        if due_s <= now_s:
            self._pacer.shown(due_s, now_s)
            self.shown_s.append(now_s)
        return due_s

    def show_rest(
        self,
        received_s: Sequence[float],
        now_s: float,
        *,
        arrived: int,
        device_clock: DecodeClock | None,
    ) -> None:
        """Everything from now on, when all that will arrive is known.

        `arrived` of `received_s` are there at `now_s`; with `device_clock` the device
        makes the rest.
        """
        total, shown, writes = len(received_s), self.shown, device_clock is not None
        rate_tps = 1 / self.interval_s
        while shown < total:
            if arrived > shown:
                if device_clock is not None:
                    rate_tps = 1 / (device_clock.token_s or self.interval_s)
                complete = arrived == total
                view = PaceView(arrived - shown, self.interval_s, rate_tps, writes, complete)
                due_s = self.poll(view, now_s)
                if due_s <= now_s:
                    shown += 1
                    continue
                if not writes:  # until the end is known, arrivals do not change the pace
                    while arrived < total - 1 and received_s[arrived] <= due_s:
                        arrived += 1
                if complete or due_s < received_s[arrived]:
                    now_s = due_s
                    continue
            now_s = max(now_s, received_s[arrived])
            arrived += 1
            if device_clock is not None:
                device_clock.made(now_s)
