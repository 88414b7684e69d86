"""One answer on one device, beside the cloud: the engine's loop and the display, as events.

It goes the way of :mod:`segue_device.generation`, with the device's own step functions:
what the engine does next, when credit is extended, when a token is shown. From the
takeover on nothing can come between, so the rest is computed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demos.trace.call import Call
from demos.trace.case import Case
from demos.trace.events import Alarm, Events
from demos.trace.outcome import Outcome, judge
from demos.trace.requests import Request
from demos.trace.screen import Screen
from demos.trace.speed import TrueSpeed
from segue_device.answer import HANDOVER_S
from segue_device.catch_up import View, Work, next_work, wait_s
from segue_device.credit import CreditView, next_credit
from segue_device.decode_clock import DecodeClock
from segue_device.engine_loop import MIN_PATIENCE_S
from segue_device.generation import OVERDUE_S
from segue_device.kept_ranges import Run, remaining_runs
from segue_device.pacing import PaceView
from segue_device.prefill_clock import PrefillClock
from segue_device.prompt_progress import PromptProgress
from segue_protocol.timeline import n_star
from segue_protocol.tuning import DEFAULT_PACE_S

Done = Callable[[Outcome], None]


class Phone:
    """A device that answers; :meth:`begin` is called when the user asks.

    `cached_tokens` of the prompt are in its cache. With `alone` the cloud is never asked.
    """

    def __init__(
        self,
        events: Events,
        case: Case,
        request: Request,
        done: Done,
        *,
        cached_tokens: int = 0,
        alone: bool = False,
    ) -> None:
        self.request = request
        self.log_tokens = 0
        self.call: Call | None = None
        self._events, self._case, self._done = events, case, done
        self._profile = case.device.profile
        self._speed = TrueSpeed(
            self._profile, request.speed, case.device.speed_jitter, request.chance("device")
        )
        self._cached_tokens = cached_tokens
        self._cloud_alive = not alone
        self._prompt = PromptProgress(request.prompt_tokens, cached_tokens)
        self._prefill_clock = PrefillClock(self._profile, cached_tokens)
        self._received_s: list[float] = []
        self._screen = Screen(max(DEFAULT_PACE_S, self._profile.decode_s))
        self._credit = 1
        self._cloud_reply_s = 0.0
        self._last_cloud_s = request.at_s
        self._absorbed = 0
        self._rests = False
        self._working = self._prefilling = self._over = self._refused = False
        self._oracle_tokens = 0
        self._look_again = Alarm(events, self._wake)
        self._show_next = Alarm(events, self._wake)

    def begin(self) -> None:
        """The user has asked."""
        self._wake()

    # ---- what arrives from the cloud

    def on_started(self, credit: int, pace_s: float) -> None:
        """The gateway has admitted the request."""
        now_s = self._events.now_s
        self._cloud_reply_s = now_s - self.request.at_s
        self._last_cloud_s = now_s
        self._credit = max(self._credit, credit)
        self._screen.interval_s = pace_s or self._screen.interval_s
        self._wake()

    def on_list(self, kept: Sequence[Run]) -> None:
        """What of the prompt is worth keeping; no use to a device that is past it."""
        prompt = self._prompt
        if not self._over and prompt.left_tokens:
            prompt.refine(remaining_runs(prompt.prompt_tokens, kept, prompt.claimed))
            self._wake()

    def on_tokens(self, count: int) -> None:
        """The cloud's next tokens; too late once the device writes."""
        if self._over:
            return
        now_s = self._last_cloud_s = self._events.now_s
        if not self.log_tokens:
            self._ask_oracle()
        self.log_tokens += count
        self._received_s += [now_s] * count
        self._wake()

    def on_refused(self) -> None:
        """The cloud has no room: the device goes on alone."""
        self._cloud_alive, self._refused = False, True
        self._wake()

    def _send_credit(self, through: int) -> None:
        """Tell the gateway of the credit."""

    def _send_takeover(self) -> None:
        """Tell the gateway to stop."""

    # ---- the loop

    def _wake(self) -> None:
        """Something has changed: show what is due, work if there is nothing else to do."""
        if self._over:
            return
        if self.log_tokens >= self.request.output_tokens:
            self._end(None)
            return
        self._show()
        if not self._working:
            self._work()

    def _show(self) -> None:
        now_s = self._events.now_s
        while self._screen.shown < self.log_tokens:
            due_s = self._screen.poll(self._pace_view(), now_s)
            if due_s > now_s:
                self._show_next.set(due_s)
                return
            self._extend_credit()

    def _work(self) -> None:
        view = self._view()
        work = next_work(view)
        if work is Work.WAIT:
            seconds = wait_s(view)
            if seconds is not None:
                self._look_again.set(self._events.now_s + max(seconds, 1e-6))
        elif work is Work.PREFILL:
            self._prefill()
        elif work is Work.ABSORB:
            end = self.log_tokens
            self._busy(end - self._absorbed, lambda: self._absorbed_up_to(end))
        else:
            assert work is Work.TAKE_OVER, work
            self._take_over()

    def _view(self) -> View:
        interval_s, waiting = self._screen.interval_s, self._screen.shown < self.log_tokens
        return View(
            prefill_left_tokens=self._prompt.left_tokens,
            absorbed_tokens=self._absorbed,
            log_tokens=self.log_tokens,
            credit_through=self._credit,
            device_writes=False,
            cloud_alive=self._cloud_alive,
            takeover_forced=False,
            over=False,
            paused=self._rests,
            silence_s=self._events.now_s - self._last_cloud_s,
            patience_s=max(MIN_PATIENCE_S, 2 * interval_s) if waiting else interval_s,
        )

    # ---- work of the engine

    def _busy(self, tokens: int, done: Callable[[], None]) -> None:
        self._working = True
        seconds = self._speed.append_s(tokens, self._prompt.done_tokens + self._absorbed)
        self._events.at(self._events.now_s + seconds, lambda: self._worked(done))

    def _worked(self, done: Callable[[], None]) -> None:
        self._working = False
        if not self._over:
            done()
            self._wake()

    def _prefill(self) -> None:
        if not self._prefilling:
            self._prefilling = True
            self._prefill_clock.start(self._events.now_s)
        chunk = self._prompt.claim_chunk(self._case.device.chunk_tokens)
        self._busy(len(chunk), lambda: self._prefilled(chunk[-1] + 1))

    def _prefilled(self, position: int) -> None:
        self._prompt.move_to(position)
        self._prefill_clock.observe(self._prompt.done_tokens, self._events.now_s)
        self._extend_credit()

    def _absorbed_up_to(self, index: int) -> None:
        self._absorbed = index

    def _take_over(self) -> None:
        """Write the rest alone, one step after the other."""
        index = self.log_tokens
        self._send_takeover()
        now_s = self._events.now_s + self._speed.handover_s()
        cells = self._prompt.kept_tokens + index
        for place in range(self.request.output_tokens - index):
            if place:
                now_s += self._speed.append_s(1, cells + place)
            self._received_s.append(now_s)
        self._end(index)

    def _end(self, takeover_index: int | None) -> None:
        self._over = True
        self._look_again.off()
        self._show_next.off()
        clock = DecodeClock(self._profile.decode_s) if takeover_index is not None else None
        self._screen.show_rest(
            self._received_s, self._events.now_s, arrived=self.log_tokens, device_clock=clock
        )
        self._done(
            judge(
                self.request,
                self._screen.shown_s,
                self._case.targets,
                takeover_index=takeover_index,
                oracle_tokens=self._oracle_tokens,
                refused=self._refused,
                call=self.call,
            )
        )

    # ---- credit and pace

    def _extend_credit(self) -> None:
        if not self._cloud_alive or self._rests or not self._prompt.left_tokens:
            return
        if not self._cloud_reply_s:
            return  # before `started` there is nothing to extend
        through = next_credit(
            CreditView(
                credit_through=self._credit,
                max_tokens=self.request.max_tokens,
                shown_tokens=self._screen.shown,
                show_interval_s=self._screen.interval_s,
                ready_in_s=self._ready_in_s,
                absorb_per_token_s=self._absorb_s,
                cloud_reply_s=self._cloud_reply_s,
            )
        )
        if through is not None:
            if self.log_tokens >= self._credit:
                self._last_cloud_s = self._events.now_s  # from now on it owes something again
            self._credit = through
            self._send_credit(through)

    @property
    def _absorb_s(self) -> float:
        return self._profile.absorb_per_token_s(self._prompt.kept_tokens)

    @property
    def _ready_in_s(self) -> float:
        left_s = self._prefill_clock.left_s(self._prompt.left_tokens, self._events.now_s)
        owed = max(self._credit, self.log_tokens) - self._absorbed
        return left_s + owed * self._absorb_s + HANDOVER_S

    def _pace_view(self) -> PaceView:
        return PaceView(
            backlog_tokens=self.log_tokens - self._screen.shown,
            show_interval_s=self._screen.interval_s,
            device_rate_tps=1 / self._profile.decode_s,
            device_writes=False,
            complete=False,
            expected_s=self._expected_s(),
        )

    def _expected_s(self) -> float:
        if self._cloud_alive and self.log_tokens < self._credit:
            return 0.0
        ready_in_s = self._ready_in_s
        return ready_in_s if ready_in_s > HANDOVER_S else OVERDUE_S

    def _ask_oracle(self) -> None:
        """At the first token: how many an oracle would have asked for."""
        profile, tokens = self._speed.mean_profile, self.request.prompt_tokens
        waited_s = self._events.now_s - self.request.at_s
        needed = n_star(
            prefill_left_s=max(0.0, profile.prefill_left_s(tokens, self._cached_tokens) - waited_s),
            show_interval_s=self._screen.interval_s,
            absorb_per_token_s=profile.absorb_per_token_s(tokens),
            handover_s=profile.handover_s,
        )
        output_tokens = self.request.output_tokens
        self._oracle_tokens = min(needed or output_tokens, output_tokens)
