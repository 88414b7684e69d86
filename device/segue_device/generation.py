"""One answer on the device.

Three tasks share one :class:`~segue_device.answer.Answer`: the cloud's stream
appends what it sends (:class:`CloudPeer`, :class:`CloudMessages`), the engine
prefills, absorbs, takes over and decodes (:class:`EngineLoop`), and `_show`
reads the log to the user at the pacer's rate. Their decisions are pure step
functions of explicit state: :mod:`catch_up`, :mod:`credit`, :mod:`pacing`.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from segue_device import events
from segue_device.answer import HANDOVER_S, Answer
from segue_device.cloud_messages import CloudMessages
from segue_device.cloud_peer import CloudPeer
from segue_device.engines.runner import Runner
from segue_device.pacing import PaceView, Pacing
from segue_device.request import AnswerRequest
from segue_device.state import DeviceState
from segue_device.timings import measure
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
        silence_limit_s: float = 15.0,
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
        )
        self._engine = None
        self.answer.engine_alive = runner is not None
        if runner is not None:  # only now: the sampler needs numpy, which an engine brings
            from segue_device.engine_loop import EngineLoop

            self._engine = EngineLoop(self.answer, runner)

    def cancel(self) -> None:
        """End the answer now; what was received is shown at once. Idempotent."""
        self.answer.end(events.FinishReason.CANCELLED)

    def take_over(self) -> None:
        """Take over as soon as the device has caught up, whatever the credit."""
        self.answer.takeover_forced = True
        self.answer.notify()

    async def run(self) -> events.Result:
        """Run to the end. Raises the answer's error with `.partial` filled."""
        answer = self.answer
        async with anyio.create_task_group() as tasks:
            if self._peer is not None:
                tasks.start_soon(self._peer.run, CloudMessages(answer))
            if self._engine is not None:
                tasks.start_soon(self._engine.run)
            await self._show()
            ended_s = anyio.current_time()
            await self._settle()
            tasks.cancel_scope.cancel()
        if answer.error is not None:
            answer.error.partial = tuple(answer.log.ids)
            raise answer.error
        return self._result(ended_s)

    async def _show(self) -> None:
        """Read the log to the user until it is complete and shown."""
        answer, display = self.answer, self.answer.display
        while display.backlog or not answer.over:
            self._emit_pending()
            if not display.backlog:
                await answer.wait()
                continue
            now_s = anyio.current_time()
            due_s = display.due_s(self._pace_view(), now_s)
            if due_s > now_s:
                await answer.wait(due_s - now_s)
                continue
            entry = answer.log[display.cursor]
            if entry.index == answer.log.takeover_index:
                self._emit(events.Takeover(entry.index, entry.index < answer.credit_through))
            text = display.show_next(due_s, now_s)
            self._emit(events.Token(entry.index, entry.token_id, text, entry.source))
            answer.extend_credit()
        self._emit_pending()
        tail = display.take_tail()
        if tail:
            self._emit(events.Token(None, None, tail, answer.log.writer))

    def _pace_view(self) -> PaceView:
        answer = self.answer
        profile = answer.request.profile
        interval_s = answer.show_interval_s
        return PaceView(
            backlog_tokens=answer.display.backlog,
            show_interval_s=interval_s,
            device_rate_tps=1 / (profile.decode_s if profile is not None else interval_s),
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

    def _result(self, ended_s: float) -> events.Result:
        answer, log = self.answer, self.answer.log
        assert answer.reason is not None
        return events.Result(
            token_ids=tuple(log.ids),
            text="".join(answer.display.shown_text),
            finish_reason=answer.reason,
            usage=events.Usage(
                prompt_tokens=len(answer.request.prompt_ids),
                cached_tokens=answer.request.cached_tokens,
                cloud_tokens=log.count(Source.CLOUD),
                device_tokens=log.count(Source.DEVICE),
                discarded_tokens=log.discarded,
            ),
            timings=measure(
                answer.started_s,
                ended_s,
                answer.display.shown_s,
                [log[index].t_received_s for index in range(len(log))],
                log.takeover_index,
            ),
            takeover_index=log.takeover_index,
            min_margin=answer.min_margin,
            cloud=self._peer.finish if self._peer is not None else None,
        )
