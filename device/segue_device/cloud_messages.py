"""What the cloud's messages do to one answer, as the table in `state` says."""

from __future__ import annotations

import anyio

from segue_device import events
from segue_device.answer import Answer
from segue_device.state import ACTIONS, Action, DeviceState
from segue_device.token_log import Source
from segue_protocol.errors import (
    DeadlineExceeded,
    NotFound,
    ProtocolError,
    SegueError,
    Unavailable,
)
from segue_protocol.wire import public

# Between two tries to resume; the last one repeats until the limit.
RECONNECT_DELAYS_S = (0.1, 0.2, 0.4, 0.8)

_REASONS = {
    public.FINISH_REASON_STOP: events.FinishReason.STOP,
    public.FINISH_REASON_LENGTH: events.FinishReason.LENGTH,
}


class CloudMessages:
    """Applies responses, and the loss of the stream, to an answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._generation_id = ""
        self._resume_token: bytes | None = None
        self._tries = 0
        self._dropped_by: SegueError = Unavailable("no stream has broken yet")
        self._give_up_s = 0.0

    def on_response(self, response: public.GenerateResponse) -> None:
        """One message. What the protocol does not allow here ends the cloud's part."""
        answer = self._answer
        kind = response.WhichOneof("message") or "nameless"
        action = ACTIONS.get((answer.state, kind), Action.REFUSE)
        try:
            if action is Action.CONFIRM:
                self._confirm(response.started)
            elif action is Action.APPEND:
                self._append(response.tokens)
            elif action is Action.DISCARD:
                answer.log.discarded += len(response.tokens.ids)
            elif action is Action.CLOUD_END:
                self._ended(response.finish)
            elif action is Action.WARN:
                warning = response.warning
                answer.pending.append(events.Warning(warning.code, warning.message))
            elif action is Action.REFUSE:
                raise ProtocolError(f"the cloud sent a {kind} message in {answer.state.name}")
        except ProtocolError as error:
            answer.cloud_alive = False
            self._go_on_alone(error)
        answer.notify()

    def first_message(self) -> public.GenerateRequest | None:
        """`start`; then `resume`, or `start` with what there is if the cloud forgot us."""
        answer = self._answer
        if answer.over or answer.log.writer is Source.DEVICE:
            return None
        if self._resume_token is None:
            start = answer.request.start_message(output_prefix=answer.log.ids)
            return public.GenerateRequest(start=start)
        resume = public.Resume(
            generation_id=self._generation_id,
            resume_token=self._resume_token,
            next_index=len(answer.log),
            credit=public.Credit(through=answer.credit_through),
        )
        return public.GenerateRequest(resume=resume)

    def on_stream_end(self, error: SegueError | None) -> float | None:
        """The stream is over, `error` None without an error. Decides whether to try again."""
        answer = self._answer
        answer.cloud_alive = False
        error = error or Unavailable("the cloud ended the stream early", reason="STREAM_ENDED")
        action = ACTIONS[answer.state, "lost"]
        delay_s = None
        if action is Action.RECONNECT:
            delay_s = self._reconnect(error)
        elif action is Action.LOSE:
            self._go_on_alone(error)
        answer.notify()
        return delay_s

    def _reconnect(self, error: SegueError) -> float | None:
        """Seconds until the next try, or None when there is no sense in one."""
        answer = self._answer
        now_s = anyio.current_time()
        if answer.state is not DeviceState.RECONNECTING:
            answer.pending.append(events.Reconnecting(error.message))
            answer.enter(DeviceState.RECONNECTING)
            self._tries = 0
            self._dropped_by = error
            self._give_up_s = now_s + answer.reconnect_limit_s
        forgotten = isinstance(error, NotFound)
        if forgotten:
            self._resume_token = None
        hopeless = not isinstance(error, (Unavailable, DeadlineExceeded)) and not forgotten
        if hopeless or now_s >= self._give_up_s:
            # Out of time: what broke the stream says more than the last refused try.
            self._go_on_alone(error if hopeless else self._dropped_by)
            return None
        delay_s = RECONNECT_DELAYS_S[min(self._tries, len(RECONNECT_DELAYS_S) - 1)]
        self._tries += 1
        return delay_s

    def _go_on_alone(self, error: SegueError) -> None:
        answer = self._answer
        if not answer.engine_alive:
            answer.fail(error)
            return
        answer.pending.append(events.Fallback(f"cloud: {error.message}"))
        if answer.state is DeviceState.CONNECTING:
            answer.enter(DeviceState.DEVICE_ONLY)
        elif answer.state is DeviceState.RECONNECTING:
            answer.enter(answer.state_beside_the_cloud())

    def _confirm(self, started: public.Started) -> None:
        answer = self._answer
        now_s = anyio.current_time()
        if answer.state is DeviceState.CONNECTING:
            answer.cloud_reply_s = now_s - answer.started_s
        answer.last_cloud_s = now_s
        answer.credit_through = max(answer.credit_through, started.credit_through)
        answer.show_interval_s = max(started.advice.pace_s, answer.request.show_interval_s)
        answer.cloud_alive = True
        self._generation_id = started.generation_id
        self._resume_token = started.resume_token
        resumed = answer.state is DeviceState.RECONNECTING
        answer.enter(answer.state_beside_the_cloud())
        if resumed:
            answer.pending.append(events.Resumed(len(answer.log)))
            return
        answer.pending.append(
            events.Started(
                generation_id=started.generation_id,
                resume_token=started.resume_token,
                prompt_tokens=started.prompt_tokens,
                credit_through=started.credit_through,
                cloud_tokens=started.advice.cloud_tokens,
            )
        )

    def _append(self, tokens: public.Tokens) -> None:
        answer = self._answer
        now_s = answer.last_cloud_s = anyio.current_time()
        if not tokens.ids:  # the end of the text of a client without a tokenizer
            answer.display.complete(tokens.text)
        for offset, token in enumerate(tokens.ids):
            if answer.over:
                answer.log.discarded += len(tokens.ids) - offset
                return
            answer.log.append_from_cloud(tokens.index + offset, [token], now_s)
            # The server's text covers the whole message; it goes with the last token.
            is_last = offset == len(tokens.ids) - 1
            answer.token_appended(token, tokens.text if is_last else "")

    def _ended(self, finish: public.Finish) -> None:
        answer = self._answer
        reason = _REASONS.get(finish.reason)
        if reason is None or finish.length != len(answer.log):
            raise ProtocolError(
                f"the cloud ended with {public.FinishReason.Name(finish.reason)} at "
                f"{finish.length} tokens, {len(answer.log)} had arrived"
            )
        answer.end(reason)
