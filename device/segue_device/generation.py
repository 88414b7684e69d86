"""One answer on the device.

Three tasks share one :class:`~segue_device.answer.Answer`: the cloud's stream
appends what it sends (:class:`CloudPeer`, :class:`CloudMessages`), the engine
prefills, absorbs, takes over and decodes (:class:`EngineLoop`), and `_show`
reads the log to the user at the pacer's rate; a fourth watches the time
budgets. Their decisions are pure step functions of explicit state:
:mod:`catch_up`, :mod:`credit`, :mod:`pacing`, :mod:`budgets`.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from segue_device import events
from segue_device.answer import HANDOVER_S, Answer
from segue_device.budgets import BudgetView, next_deadline
from segue_device.cloud_messages import CloudMessages
from segue_device.cloud_peer import SILENCE_LIMIT_S, CloudPeer
from segue_device.engines.runner import Runner
from segue_device.pacing import PaceView, Pacing
from segue_device.request import AnswerRequest
from segue_device.result import result_of
from segue_device.state import DeviceState
from segue_device.token_log import Source
from segue_device.transports.base import Transport
from segue_protocol.text import TextStream

# The cloud's account of itself comes within a round trip of the end, or not at all.
SETTLE_S = 0.5
# A hand-over that was expected by now may still take this long.
OVERDUE_S = 0.5


class Generation:
    """Runs one request; `run` returns when its last event has been emitted."""

    def __init__(
        self,
        request: AnswerRequest,
        emit: Callable[[events.Event], None],
        *,
        runner: Runner | None,
        transport: Transport | None,
        text: TextStream | None,
        pacing: Pacing,
        silence_limit_s: float = SILENCE_LIMIT_S,
    ) -> None:
        assert runner is not None or transport is not None
        self._emit = emit
        self._peer = None
        if transport is not None:
            self._peer = CloudPeer(transport, silence_limit_s=silence_limit_s)
        self.answer = Answer(
            request,
            DeviceState.CONNECTING if self._peer else DeviceState.DEVICE_ONLY,
            text=text,
            pacing=pacing,
            send=self._peer.send if self._peer else lambda message: None,
            hang_up=self._peer.hang_up if self._peer else lambda: None,
        )
        self._messages = CloudMessages(self.answer)
        self._engine = None
        self.answer.engine_alive = runner is not None
        if runner is not None:  # only now: the sampler needs numpy, which an engine brings
            from segue_device.engine_loop import EngineLoop

            self._engine = EngineLoop(self.answer, runner)

    def cancel(self) -> None:
        """End the answer now; what was received is shown at once. Idempotent."""
        self.answer.end(events.FinishReason.CANCELLED)

    def takeover(self) -> None:
        """Take over as soon as the device has caught up, whatever the credit."""
        self.answer.takeover_forced = True
        self.answer.notify()

    def stop_pacing(self) -> None:
        """Show everything as soon as it is there."""
        self.answer.display.stop_pacing()
        self.answer.notify()

    async def run(self) -> events.Result:
        """Run to the end. Raises the answer's error with `.partial` filled."""
        answer = self.answer
        async with anyio.create_task_group() as tasks:
            if self._peer is not None:
                tasks.start_soon(self._talk, self._peer)
            if self._engine is not None:
                tasks.start_soon(self._engine.run)
            tasks.start_soon(self._watch)
            await self._show()
            ended_s = anyio.current_time()
            await self._settle()
            tasks.cancel_scope.cancel()
        if answer.error is not None:
            answer.error.partial = tuple(answer.log.ids)
            raise answer.error
        return result_of(answer, ended_s, self._peer.finish if self._peer else None)

    async def _talk(self, peer: CloudPeer) -> None:
        """Keep a stream to the cloud whenever the answer needs one."""
        while True:
            while not self._messages.wants_stream:
                await self.answer.wait()
            self._messages.begin()
            await peer.run(self._messages)

    async def _watch(self) -> None:
        """End what outlasts its time budget."""
        answer = self.answer
        while not answer.over:
            deadline = next_deadline(answer.request.budgets, self._budget_view())
            left_s = deadline.at_s - anyio.current_time() if deadline else None
            if deadline is None or left_s is None or left_s > 0:
                await answer.wait(left_s)
            elif deadline.fatal:
                answer.fail(deadline.error())
            else:
                self._messages.give_up(deadline.error())
                answer.hang_up()

    def _budget_view(self) -> BudgetView:
        answer = self.answer
        connecting = answer.state is DeviceState.CONNECTING
        owed = answer.cloud_alive and len(answer.log) < answer.credit_through
        cloud_writes = owed and answer.log.writer is Source.CLOUD and not answer.over
        begun = len(answer.log) > 0
        return BudgetView(
            asleep=answer.suspended,
            started_s=answer.started_s,
            connecting_since_s=answer.started_s if connecting and cloud_writes else None,
            first_token_since_s=answer.started_s if cloud_writes and not begun else None,
            inter_token_since_s=answer.last_cloud_s if cloud_writes and begun else None,
        )

    async def _show(self) -> None:
        """Read the log to the user until it is complete and shown."""
        answer, display = self.answer, self.answer.display
        while display.backlog or not answer.over:
            self._emit_pending()
            if (answer.suspended and not answer.over) or not display.backlog:
                await answer.wait()
                continue
            now_s = anyio.current_time()
            due_s = display.due_s(self._pace_view(), now_s)
            if due_s > now_s:
                await answer.wait(due_s - now_s)
                continue
            entry = answer.log[display.cursor]
            if entry.index in answer.log.takeovers and entry.source is Source.DEVICE:
                self._emit(events.Takeover(entry.index, entry.index < answer.credit_through))
            text = display.show_next(due_s, now_s)
            logprob = entry.logprob if answer.request.logprobs else None
            self._emit(events.Token(entry.index, entry.token_id, text, entry.source, logprob))
            answer.extend_credit()
        self._emit_pending()
        tail = display.take_tail()
        if tail:
            self._emit(events.Token(None, None, tail, answer.log.writer))

    def _pace_view(self) -> PaceView:
        answer = self.answer
        return PaceView(
            backlog_tokens=answer.display.backlog,
            show_interval_s=answer.show_interval_s,
            device_rate_tps=1 / (answer.decode_clock.token_s or answer.show_interval_s),
            device_writes=answer.log.writer is Source.DEVICE,
            complete=answer.over,
            expected_s=self._expected_s(),
            cancelled=answer.reason is events.FinishReason.CANCELLED,
        )

    def _expected_s(self) -> float:
        """Until the next token is in the log; 0 while somebody is writing."""
        answer = self.answer
        owed = answer.cloud_alive and len(answer.log) < answer.credit_through
        if answer.log.writer is Source.DEVICE or answer.over or owed or not answer.engine_alive:
            return 0.0
        ready_in_s = answer.ready_in_s
        return ready_in_s if ready_in_s > HANDOVER_S else OVERDUE_S

    def _emit_pending(self) -> None:
        pending, self.answer.pending = self.answer.pending, []
        for event in pending:
            self._emit(event)

    async def _settle(self) -> None:
        peer = self._peer
        with anyio.move_on_after(SETTLE_S):
            while peer is not None and peer.alive and peer.finish is None:
                await self.answer.wait()
