"""What the cloud's messages do to one answer, as the table in `state` says."""

from __future__ import annotations

import anyio

from segue_device import events
from segue_device.answer import Answer
from segue_device.kept_ranges import remaining_runs
from segue_device.reconnect import Reconnect
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
        self._reconnect = Reconnect()
        self._given_up = False
        self._takeovers = 0

    @property
    def wants_stream(self) -> bool:
        """Whether the answer needs the cloud and has no stream."""
        answer = self._answer
        waiting = answer.state in (DeviceState.CONNECTING, DeviceState.RECONNECTING)
        return waiting and not answer.suspended and (self._given_back or not self._given_up)

    @property
    def _given_back(self) -> bool:
        """The device had taken over and stopped: what the cloud says is about the past."""
        log = self._answer.log
        return log.writer is Source.CLOUD and len(log.takeovers) != self._takeovers

    def on_response(self, response: public.GenerateResponse) -> None:
        """One message. What the protocol does not allow here ends the cloud's part."""
        answer = self._answer
        kind = response.WhichOneof("message") or "nameless"
        action = ACTIONS.get((answer.state, kind), Action.REFUSE)
        try:
            if self._given_up or self._given_back:
                answer.log.discarded += len(response.tokens.ids)
            elif action is Action.CONFIRM:
                self._confirm(response.started)
            elif action is Action.APPEND:
                self._append(response.tokens)
            elif action is Action.REFINE:
                self._refine(response.refinement)
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
            answer.cloud_allowed = False
            self.give_up(error)
        answer.notify()

    def begin(self) -> None:
        """The cloud is asked, at first or after a pause: patience begins anew."""
        self._reconnect.restart(anyio.current_time())

    def first_message(self) -> public.GenerateRequest | None:
        """`start`; then `resume`, or `start` with what there is if the cloud forgot us."""
        answer = self._answer
        if not self.wants_stream:
            return None
        if self._given_back:
            self._start_anew()
        if self._resume_token is None:
            start = answer.request.start_message(answer.log.ids, answer.credit_through)
            return public.GenerateRequest(start=start)
        resume = public.Resume(
            generation_id=self._generation_id,
            resume_token=self._resume_token,
            next_index=len(answer.log),
            credit=public.Credit(through=answer.credit_through),
        )
        return public.GenerateRequest(resume=resume)

    def _start_anew(self) -> None:
        """The device's takeover ended the old generation; the next stream is a new one."""
        self._resume_token = None
        self._given_up = False
        self._takeovers = len(self._answer.log.takeovers)
        cause = Unavailable("the device stopped, and no cloud took the answer over")
        self._reconnect.begin(cause, anyio.current_time())

    def on_stream_end(self, error: SegueError | None) -> float | None:
        """The stream is over, `error` None without an error. Decides whether to try again."""
        answer = self._answer
        if self._given_back:
            return 0.0
        if self._given_up:
            return None
        error = error or Unavailable("the cloud ended the stream early", reason="STREAM_ENDED")
        action = ACTIONS[answer.state, "lost"]
        if answer.suspended and action is Action.LOSE:
            return None  # asked again when the app wakes
        answer.cloud_alive = False
        delay_s = None
        if action is Action.RECONNECT:
            delay_s = self._try_again(error)
        elif action is Action.LOSE:
            self._go_on_alone(error)
        answer.notify()
        return delay_s

    def give_up(self, error: SegueError) -> None:
        """Go on without this cloud, whatever it still says."""
        self._answer.cloud_alive = False
        self._given_up = True
        self._go_on_alone(error)
        self._answer.notify()

    def _try_again(self, error: SegueError) -> float | None:
        """Seconds until the next try, or None when there is no sense in one."""
        answer, now_s = self._answer, anyio.current_time()
        if answer.state is not DeviceState.RECONNECTING:
            answer.pending.append(events.Reconnecting(error.message))
            answer.enter(DeviceState.RECONNECTING)
            self._reconnect.begin(error, now_s)
        if answer.suspended:
            return None
        forgotten = isinstance(error, NotFound) and self._resume_token is not None
        if forgotten:
            self._resume_token = None
        if not forgotten and not isinstance(error, (Unavailable, DeadlineExceeded)):
            self._go_on_alone(error)  # asking again would change nothing
            return None
        delay_s = self._reconnect.next_delay_s(now_s)
        if delay_s is None:
            # Out of time: what broke the stream says more than the last refused try.
            self._go_on_alone(self._reconnect.cause)
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
        answer.show_interval_s = started.advice.pace_s or answer.request.show_interval_s
        answer.cloud_alive = True
        reconnected = answer.state is DeviceState.RECONNECTING
        is_new = self._generation_id != started.generation_id or not reconnected
        self._generation_id = started.generation_id
        self._resume_token = started.resume_token
        answer.enter(answer.state_beside_the_cloud())
        if is_new:
            if answer.request.credit_through is None:  # otherwise the app decided
                answer.explanation = started.advice.explanation
            answer.pending.append(
                events.Started(
                    generation_id=started.generation_id,
                    resume_token=started.resume_token,
                    prompt_tokens=started.prompt_tokens,
                    credit_through=started.credit_through,
                    cloud_tokens=started.advice.cloud_tokens,
                )
            )
        if reconnected:
            answer.pending.append(events.Resumed(len(answer.log)))

    def _append(self, tokens: public.Tokens) -> None:
        answer = self._answer
        now_s = answer.last_cloud_s = anyio.current_time()
        for offset, token in enumerate(tokens.ids):
            if answer.over:
                answer.log.discarded += len(tokens.ids) - offset
                return
            logprob = tokens.logprobs[offset] if offset < len(tokens.logprobs) else None
            answer.log.append_from_cloud(tokens.index + offset, token, now_s, logprob)
            # The server's text covers the whole message; it goes with the last token.
            is_last = offset == len(tokens.ids) - 1
            answer.token_appended(token, tokens.text if is_last else "")

    def _refine(self, refinement: public.Refinement) -> None:
        """Leave out what is dispensable of the prompt that is still to be prefilled.

        A resumed or renewed stream tells again; the first list is the one gone by.
        """
        prompt = self._answer.prompt
        if prompt.refined:
            return
        kept = [(each.start, each.end) for each in refinement.kept]
        prompt.refine(remaining_runs(prompt.prompt_tokens, kept, prompt.claimed))
        refined = events.Refinement(prompt.kept_tokens, prompt.prompt_tokens)
        self._answer.pending.append(refined)

    def _ended(self, finish: public.Finish) -> None:
        answer = self._answer
        reason = _REASONS.get(finish.reason)
        if reason is None or finish.length != len(answer.log):
            raise ProtocolError(
                f"the cloud ended with {public.FinishReason.Name(finish.reason)} at "
                f"{finish.length} tokens, {len(answer.log)} had arrived"
            )
        answer.end(reason)
