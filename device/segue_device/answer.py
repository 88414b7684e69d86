"""The state of one answer, shared by the three tasks that make it.

Everything happens in one event loop; a task changes the state in one step and
calls :meth:`Answer.notify`, the others wait in :meth:`Answer.wait`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from segue_device import events
from segue_device.credit import CreditView, next_credit
from segue_device.display import Display
from segue_device.engines.base import Cancel
from segue_device.pacing import Pacing
from segue_device.prefill_clock import PrefillClock
from segue_device.request import AnswerRequest
from segue_device.state import OVER, DeviceState, require_transition
from segue_device.token_log import Source, TokenLog
from segue_protocol.errors import SegueError
from segue_protocol.text import TextStream
from segue_protocol.wire import public

# From the last token absorbed to the first one made; the tuner's delta.
HANDOVER_S = 0.02


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
        reconnect_limit_s: float = 10.0,
    ) -> None:
        alone = state is DeviceState.DEVICE_ONLY
        self.request = request
        self.state = state
        self.log = TokenLog(writer=Source.DEVICE if alone else Source.CLOUD)
        self.display = Display(self.log, text, pacing)
        self.send = send
        self.pending: list[events.Event] = []  # for the display to emit in order
        self.reason: events.FinishReason | None = None
        self.error: SegueError | None = None

        self.cloud_alive = not alone
        self.reconnect_limit_s = reconnect_limit_s
        self.credit_through = request.credit_through or 1
        self.show_interval_s = request.show_interval_s
        self.started_s = self.last_cloud_s = anyio.current_time()
        self.cloud_reply_s = 0.0

        self.engine_alive = True
        self.engine_cancel = Cancel()
        self.prefill_clock = PrefillClock(request.profile, request.cached_tokens)
        self.prefilled_tokens = request.cached_tokens
        self.absorbed_tokens = 0
        self.takeover_forced = False
        self.min_margin = math.inf
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
        if self.prefilled_tokens == len(self.request.prompt_ids):
            return DeviceState.CATCHING_UP
        return DeviceState.CLOUD

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
        if self.log.writer is Source.CLOUD and not cloud_knows:
            self.send(public.GenerateRequest(cancel=public.Cancel(reason=reason.value)))
        self.reason = reason
        self._close(DeviceState.DONE)

    def fail(self, error: SegueError) -> None:
        """The answer cannot go on; what is in the log is still shown."""
        if self.over:
            return
        self.error = error
        self._close(DeviceState.FAILED)

    def _close(self, state: DeviceState) -> None:
        self.display.complete()
        self.enter(state)
        self.engine_cancel.set()
        self.notify()

    # ---- credit

    def extend_credit(self) -> None:
        """Ask for more cloud tokens if this device will be late."""
        helping = self.state in (DeviceState.CLOUD, DeviceState.CATCHING_UP) and self.cloud_alive
        if not helping or self.request.credit_through is not None:
            return  # a credit set by the app is not changed
        through = next_credit(self._credit_view())
        if through is not None:
            self.raise_credit(through)

    def raise_credit(self, through: int) -> None:
        """Credit is absolute and monotone."""
        self.credit_through = max(self.credit_through, through)
        credit = public.Credit(through=self.credit_through)
        self.send(public.GenerateRequest(credit=credit))

    @property
    def _absorb_s(self) -> float:
        profile = self.request.profile
        return profile.absorb_per_token_s(len(self.request.prompt_ids)) if profile else 0.0

    @property
    def ready_in_s(self) -> float:
        """Until the device can make a token, as far as is known."""
        prompt_tokens = len(self.request.prompt_ids)
        left_s = self.prefill_clock.left_s(prompt_tokens, anyio.current_time())
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
        with anyio.move_on_after(seconds):
            await changed.wait()
