"""What the cloud's messages do to one answer, as the table in `state` says."""

from __future__ import annotations

import anyio

from segue_device import events
from segue_device.answer import Answer
from segue_device.state import ACTIONS, Action, DeviceState
from segue_protocol.errors import ProtocolError, SegueError, Unavailable
from segue_protocol.wire import public

_REASONS = {
    public.FINISH_REASON_STOP: events.FinishReason.STOP,
    public.FINISH_REASON_LENGTH: events.FinishReason.LENGTH,
}


class CloudMessages:
    """Applies responses, and the loss of the stream, to an answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

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
            self.on_lost(error)
        answer.notify()

    def on_lost(self, error: SegueError | None) -> None:
        """The stream is over; `error` None means that it ended without one."""
        answer = self._answer
        answer.cloud_alive = False
        action = ACTIONS[answer.state, "lost"]
        error = error or Unavailable("the cloud ended the stream early", reason="STREAM_ENDED")
        if action is Action.FAIL or (action is Action.LOSE and not answer.engine_alive):
            answer.fail(error)
        elif action is Action.LOSE:
            answer.pending.append(events.Fallback(f"cloud: {error.message}"))
            if answer.state is DeviceState.CONNECTING:
                answer.enter(DeviceState.DEVICE_ONLY)
        answer.notify()

    def _confirm(self, started: public.Started) -> None:
        answer = self._answer
        now_s = anyio.current_time()
        answer.cloud_reply_s = now_s - answer.started_s
        answer.last_cloud_s = now_s
        answer.credit_through = max(answer.credit_through, started.credit_through)
        answer.show_interval_s = max(started.advice.pace_s, answer.request.show_interval_s)
        if not answer.engine_alive:
            answer.enter(DeviceState.CLOUD_ONLY)
        elif answer.prefilled_tokens == len(answer.request.prompt_ids):
            answer.enter(DeviceState.CATCHING_UP)
        else:
            answer.enter(DeviceState.CLOUD)
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
