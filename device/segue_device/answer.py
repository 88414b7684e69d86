"""The state of one answer, shared by the tasks that make it.

Everything happens in one event loop; a task changes the state in one step and
calls :meth:`Answer.notify`, the others wait in :meth:`Answer.wait`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from segue_device import events
from segue_device.credit import CreditView, next_credit
from segue_device.decode_clock import DecodeClock
from segue_device.display import Display
from segue_device.engines.base import Cancel
from segue_device.pacing import Pacing
from segue_device.prefill_clock import PrefillClock
from segue_device.prompt_progress import PromptProgress
from segue_device.request import AnswerRequest
from segue_device.state import OVER, DeviceState, require_transition
from segue_device.token_log import Source, TokenLog
from segue_protocol.errors import SegueError
from segue_protocol.text import TextStream
from segue_protocol.wire import public

# From the last token absorbed to the first one made; the tuner's delta.
HANDOVER_S = 0.02
MIN_WAIT_S = 1e-6


class Answer:
    """Log, state and counters of one answer. Times are on this device's clock."""

    def __init__(
        self,
        request: AnswerRequest,
        state: DeviceState,
        *,
        text: TextStream | None,
        pacing: Pacing,
        send: Callable[[public.GenerateRequest], None],
        hang_up: Callable[[], None],
    ) -> None:
        alone = state is DeviceState.DEVICE_ONLY
        self.request = request
        self.state = state
        self.log = TokenLog(writer=Source.DEVICE if alone else Source.CLOUD)
        self.display = Display(self.log, text, pacing)
        self.send = send
        self.hang_up = hang_up
        self.pending: list[events.Event] = []  # for the display to emit in order
        if request.placement_reason is not None:
            self.pending.append(events.Fallback(request.placement_reason))
        self.reason: events.FinishReason | None = None
        self.error: SegueError | None = None
        self.suspended = False

        self.cloud_alive = self.cloud_allowed = not alone
        self.credit_through = request.credit_through or 1
        self.show_interval_s = request.show_interval_s
        # `last_cloud_s`: the last sign of the cloud's decoding, or that it was asked.
        self.started_s = self.last_cloud_s = anyio.current_time()
        self.cloud_reply_s = 0.0

        self.engine_alive = True
        self.engine_cancel = Cancel()
        self.rests = request.device_standby
        self.prompt = PromptProgress(len(request.prompt_ids), request.cached_tokens)
        self.prefill_clock = PrefillClock(request.profile, request.cached_cells)
        self.decode_clock = DecodeClock(request.profile.decode_s if request.profile else None)
        self.absorbed_tokens = 0
        self.takeover_forced = False
        self.min_margin = math.inf
        self.explanation = request.explanation
        self._changed = anyio.Event()

    @property
    def over(self) -> bool:
        """The log is complete; it may not be shown yet."""
        return self.state in OVER

    def enter(self, state: DeviceState) -> None:
        """Change state along the table."""
        require_transition(self.state, state)
        self.state = state

    def state_beside_the_cloud(self) -> DeviceState:
        """Where an answer with a (resumed or lost) stream is, by the engine's progress."""
        if not self.engine_alive:
            return DeviceState.CLOUD_ONLY
        return DeviceState.CLOUD if self.prompt.left_tokens else DeviceState.CATCHING_UP

    def token_appended(self, token: int, server_text: str = "") -> None:
        """Find out whether the log's newest token ends the answer."""
        stopped = self.display.derive(token, server_text)
        if token in self.request.sampling.stop_token_ids:
            self.end(events.FinishReason.STOP, cloud_knows=True)
        elif stopped:
            self.end(events.FinishReason.STOP)
        elif len(self.log) >= self.request.max_tokens:
            self.end(events.FinishReason.LENGTH, cloud_knows=True)

    def end(self, reason: events.FinishReason, *, cloud_knows: bool = False) -> None:
        """The log is complete. The first end wins.

        `cloud_knows`: a cloud that writes sees this end too, in its own log.
        """
        if self.over:
            return
        self.reason = reason
        self._close(DeviceState.DONE, None if cloud_knows else reason.value)

    def fail(self, error: SegueError) -> None:
        """The answer cannot go on; what is in the log is still shown."""
        if self.over:
            return
        self.error = error
        self._close(DeviceState.FAILED, error.reason)

    def _close(self, state: DeviceState, tell_cloud: str | None) -> None:
        if tell_cloud is not None and self.log.writer is Source.CLOUD:
            self.send(public.GenerateRequest(cancel=public.Cancel(reason=tell_cloud)))
        self.display.complete()
        self.enter(state)
        self.engine_cancel.set()
        self.notify()

    # ---- the device cannot or shall not go on

    def lose_engine(self, why: str) -> bool:
        """The engine is gone: the cloud goes on, if it may. False if nobody can."""
        self.engine_alive = False
        if not self._leave_to_the_cloud():
            return False
        if self.state in (DeviceState.CLOUD, DeviceState.CATCHING_UP):
            self.enter(DeviceState.CLOUD_ONLY)
        self.pending.append(events.Fallback(why))
        self.notify()
        return True

    def rest(self, why: str | None) -> None:
        """Leave the work to the cloud as long as it can go on; None ends the rest."""
        may_rest = why is not None and self.engine_alive and not self.over
        if not may_rest:
            self.rests = self.request.device_standby
        elif not self.rests and self._leave_to_the_cloud():
            self.rests = True
            self.engine_cancel.set()
            self.pending.append(events.Fallback(f"device: {why}"))
        elif not self.rests:
            self.pending.append(events.Warning("DEVICE_MUST_GO_ON", f"no cloud, although {why}"))
        self.notify()

    def _leave_to_the_cloud(self) -> bool:
        """Let the cloud write to the end. False, and no change, if it cannot be asked."""
        asked = self.cloud_alive or self.state is DeviceState.RECONNECTING
        if self.log.writer is Source.DEVICE:
            if not self.cloud_allowed or not self._may_upload_log():
                return False
            self.log.give_back()
            self.hang_up()  # the stream there may still be is about the time before
            self.enter(DeviceState.RECONNECTING)
            self.cloud_alive = True  # until it refuses
            self.last_cloud_s = anyio.current_time()
        elif not asked:
            return False
        self.raise_credit(self.request.max_tokens)
        return True

    def _may_upload_log(self) -> bool:
        return self.request.upload_history or not self.log.count(Source.DEVICE)

    # ---- the app sleeps

    def suspend(self) -> None:
        """Stop all work; what there is stays."""
        self.suspended = True
        self.engine_cancel.set()
        self.hang_up()
        self.notify()

    def resume(self, slept_s: float) -> None:
        """Go on; time asleep is nobody's delay."""
        self.suspended = False
        self.started_s += slept_s
        self.last_cloud_s = anyio.current_time()
        self.notify()

    # ---- credit

    def extend_credit(self) -> None:
        """Ask for more cloud tokens if this device will be late.

        Not once its prefill is done: it is ready before another token could come,
        and would go on waiting for one after the other.
        """
        helping = self.state is DeviceState.CLOUD and self.cloud_alive
        if not helping or self.rests or self.request.credit_through is not None:
            return  # a credit set by the app is not changed
        through = next_credit(self._credit_view())
        if through is not None:
            self.raise_credit(through)

    def raise_credit(self, through: int) -> None:
        """Credit is absolute and monotone."""
        if len(self.log) >= self.credit_through:
            self.last_cloud_s = anyio.current_time()  # from now on it owes something again
        self.credit_through = max(self.credit_through, through)
        credit = public.Credit(through=self.credit_through)
        self.send(public.GenerateRequest(credit=credit))

    @property
    def _absorb_s(self) -> float:
        profile = self.request.profile
        return profile.absorb_per_token_s(self.prompt.kept_tokens) if profile else 0.0

    @property
    def ready_in_s(self) -> float:
        """Until the device can make a token, as far as is known."""
        left_s = self.prefill_clock.left_s(self.prompt.left_tokens, anyio.current_time())
        owed = max(self.credit_through, len(self.log)) - self.absorbed_tokens
        return left_s + owed * self._absorb_s + HANDOVER_S

    def _credit_view(self) -> CreditView:
        return CreditView(
            credit_through=self.credit_through,
            max_tokens=self.request.max_tokens,
            shown_tokens=self.display.cursor,
            show_interval_s=self.show_interval_s,
            ready_in_s=self.ready_in_s,
            absorb_per_token_s=self._absorb_s,
            cloud_reply_s=self.cloud_reply_s,
        )

    # ---- waking each other

    def notify(self) -> None:
        """Wake every task that waits."""
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self, seconds: float | None = None) -> None:
        """Until something changes, `seconds` at most."""
        changed = self._changed
        # A rest that rounding leaves must not make the caller spin.
        with anyio.move_on_after(None if seconds is None else max(seconds, MIN_WAIT_S)):
            await changed.wait()
