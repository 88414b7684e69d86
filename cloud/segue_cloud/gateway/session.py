"""One answer in the cloud.

A session owns the cloud's copy of the log and outlives streams and workers:
streams read it with cursors of their own (:mod:`segue_cloud.gateway.reader`), workers write
it under an epoch (:meth:`Session.run`), the device steers it
(:meth:`Session.handle`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress

from segue_cloud.cluster.links import DecodeStream
from segue_cloud.cluster.members import Membership
from segue_cloud.gateway.admission import Request
from segue_cloud.gateway.assignment import Assignment, Scope
from segue_cloud.gateway.attempt import (
    Budget,
    Outcome,
    credit_message,
    run_attempt,
)
from segue_cloud.gateway.log import CloudLog
from segue_cloud.gateway.measured import Measured
from segue_cloud.gateway.refinement import PromptList
from segue_cloud.gateway.state import ACTIONS, Action, RequestState, require_transition
from segue_cloud.watch.base import Watch
from segue_cloud.watch.record import record_of
from segue_protocol.errors import OutOfRange, ProtocolError, SegueError, Unavailable
from segue_protocol.identity import ModelIdentity
from segue_protocol.prefix import prefix_hash
from segue_protocol.text import TextStream
from segue_protocol.wire import private, public

MAX_LOSSES = 4


class Session:
    """State of one generation in the gateway."""

    def __init__(
        self,
        generation_id: str,
        resume_token: bytes,
        request: Request,
        advice: public.Advice,
        *,
        tenant: str = "",
        identity: ModelIdentity,
        credit_cap: int,
        text: TextStream | None,
        scope: Scope | None = None,
        watch: Watch | None = None,
        trace_parent: str = "",
    ) -> None:
        self.generation_id = generation_id
        self.tenant = tenant
        self.resume_token = resume_token
        self.request = request
        self.advice = advice
        self.identity = identity
        self.scope = scope or Scope()
        self.trace_parent = trace_parent
        self.log = CloudLog(request.output_prefix)
        self.state = RequestState.WAITING
        self.measured = Measured()
        self.cap = min(credit_cap, request.max_tokens)
        # The output prefix was paid for already; credit starts behind it.
        first = request.credit_through
        self._credit = len(self.log) + advice.cloud_tokens if first is None else first
        self.finish_reason: public.FinishReason | None = None
        self.error: SegueError | None = None
        self.prefix_mismatches = 0
        self.discarded = 0
        self._text = text
        if text is not None:
            for token in request.output_prefix:  # its text is at the client already
                text.push(token)
        self._text_of: list[str] = []  # text confirmed by output token i, stop strings applied
        self.warnings = [public.CloudWarning(code="IDENTITY", message=w) for w in request.warnings]
        self.recomputations = 0
        self.refinement = PromptList(advice.keep_ratio)
        self._decode: DecodeStream | None = None
        self.lost_workers = 0
        self._watch = watch or Watch()
        self._run_task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.step("start", os.getpid())

    # ---- queries

    @property
    def credit(self) -> int:
        """Output indices below this may be made: the smaller of credit and cap."""
        return max(min(self._credit, self.cap), len(self.request.output_prefix) + 1)

    def text_from(self, start: int) -> str:
        """The text that the tokens from index `start` on completed, for a client without ids."""
        return "".join(self._text_of[max(0, start - self.log.prefix_length) :])

    @property
    def finished(self) -> bool:
        return self.state is RequestState.FINISHED

    def complete_after(self, ids: Sequence[int]) -> public.FinishReason | None:
        """Why the answer is complete if `ids` are its output, stop strings aside."""
        if ids and ids[-1] in self.request.sampling.stop_token_ids:
            return public.FINISH_REASON_STOP
        if len(ids) >= self.request.max_tokens:
            return public.FINISH_REASON_LENGTH
        return None

    # ---- the workers' side

    async def run(self, membership: Membership, budget: Budget) -> None:
        """Drive attempts until the answer is over. Never raises; errors go to the readers."""
        if self.finished:  # ended before this task began
            return
        self._run_task = asyncio.current_task()
        try:
            outcome = await self._attempt(membership, budget)
            while outcome is not Outcome.COMPLETE:
                self._count_loss(outcome)
                await self._await_credit()
                self._announce_recompute()
                outcome = await self._attempt(membership, budget)
            self.finish(self.complete_after(self.log.ids) or public.FINISH_REASON_STOP)
        except SegueError as error:
            self.fail(error)
        except asyncio.CancelledError:
            if not self.finished:
                self.fail(Unavailable("the gateway is shutting down", reason="SHUTDOWN"))
                raise

    async def _attempt(self, membership: Membership, budget: Budget) -> Outcome:
        assignment = Assignment(
            generation_id=self.generation_id,
            epoch=self.log.begin_epoch(),
            prompt_ids=self.request.prompt_ids,
            output_ids=list(self.log.ids),
            sampling=self.request.sampling,
            max_tokens=self.request.max_tokens,
            scope=self.scope,
            keep_ratio=self.refinement.ratio_for(len(self.log)),
        )
        # A first attempt with nobody there fails at once: the device goes on
        # alone. Later ones wait, because a replacement may be starting.
        return await run_attempt(
            membership, assignment, self, budget, may_wait_for_workers=assignment.epoch > 1
        )

    def _count_loss(self, outcome: Outcome) -> None:
        self.lost_workers += outcome is Outcome.LOST
        if self.lost_workers >= MAX_LOSSES:
            raise Unavailable(
                f"workers were lost {MAX_LOSSES} times in one answer; try again later",
                reason="WORKERS_LOST",
            )

    async def _await_credit(self) -> None:
        while len(self.log) >= self.credit:
            await self._changed.wait()

    def _announce_recompute(self) -> None:
        self.recomputations += 1
        self.measured.recomputed_tokens += len(self.request.prompt_ids) + len(self.log)
        self.notify()

    def enter(self, state: RequestState) -> None:
        """Change state along the table; a finished session stays finished."""
        if self.finished or state is self.state:
            return
        require_transition(self.state, state)
        self.measured.entered(state)
        self.state = state

    def step(self, name: str, pid: int) -> None:
        self.measured.step(name, pid)

    def append(self, epoch: int, index: int, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """A worker's tokens; dropped and counted unless they are the current writer's next."""
        if self.finished:
            self.log.dropped += len(ids)
            self._watch.dropped(self, len(ids))
            return
        if not self.log.append(epoch, index, ids, logprobs):
            self._watch.dropped(self, len(ids))
            return
        self._watch.appended(self, len(ids), self.measured.appended())
        if self._text is not None:
            for token in ids:
                self._text_of.append(self._text.push(token))
            if self._text.stopped:
                self.finish(public.FINISH_REASON_STOP)
            elif self.complete_after(self.log.ids) is not None:
                # With this token and not later: a client that counts reads no further.
                self._text_of[-1] += self._text.flush()
        self.notify()

    def observe_prefill(self, prefilled: private.Prefilled) -> None:
        self.measured.prefill_s += prefilled.prefill_s
        if not self.recomputations:  # a recomputation prefills what was counted once
            self.measured.cached_tokens = prefilled.cached_tokens

    def observe_refined(self, refined: private.Refined) -> None:
        if self.refinement.made(refined):
            self.measured.list_s = refined.list_s
            self.notify()

    def observe_transfer(self, pulled: private.Pulled) -> None:
        self.measured.transfer_s += pulled.transfer_s
        self._watch.transferred(self, pulled.transfer_s, pulled.bytes)

    def decoding_on(self, stream: DecodeStream | None) -> None:
        self._decode = stream

    # ---- the device's side

    async def handle(self, message: public.GenerateRequest) -> None:
        """Apply one message of the device, as the table says for the present state.

        Raises OutOfRange on a takeover behind the log's end, ProtocolError on
        a message that may not come here.
        """
        kind = message.WhichOneof("message")
        action = ACTIONS.get((self.state, kind or ""), Action.REFUSE)
        if action is Action.RAISE_CREDIT:
            await self.raise_credit(message.credit.through)
        elif action is Action.RECORD:
            if message.progress.prefilled_tokens >= len(self.request.prompt_ids):
                self.refinement.no_use()
        elif action is Action.TAKE_OVER:
            self._take_over(message.takeover)
        elif action is Action.CANCEL:
            self.finish(public.FINISH_REASON_CANCELLED)
        elif action is Action.REFUSE:
            raise ProtocolError(
                f"a {kind or 'nameless'} message may not follow `start` or `resume` on one stream"
            )

    async def raise_credit(self, through: int) -> None:
        """Let the cloud make output indices < `through`; a smaller value changes nothing."""
        before = self.credit
        self._credit = max(self._credit, through)  # monotone: a smaller one is late, not a cut
        if self.credit == before:
            return
        self.notify()
        if self._decode is not None:
            # A worker that is gone is noticed by who reads from it, and replaced.
            with suppress(SegueError):
                await self._decode.send(credit_message(self.credit))

    def _take_over(self, takeover: public.Takeover) -> None:
        if takeover.index > len(self.log):
            raise OutOfRange(
                f"takeover at index {takeover.index}, but the log has {len(self.log)} tokens"
            )
        expected = prefix_hash(self.request.prompt_ids, self.log.ids[: takeover.index])
        if takeover.prefix_hash != expected:
            self.prefix_mismatches += 1
            self.warnings.append(
                public.CloudWarning(
                    code="PREFIX_MISMATCH",
                    message=f"device and cloud differ in the first {takeover.index} tokens",
                )
            )
        self.discarded = self.log.truncate(takeover.index)
        self.finish(public.FINISH_REASON_TAKEN_OVER)

    # ---- the end

    def finish(self, reason: public.FinishReason) -> None:
        """End well. The first end wins; workers are let go at once."""
        self._end(reason, None)

    def fail(self, error: SegueError) -> None:
        """End with an error, which every reader raises."""
        self._end(None, error)

    def _end(self, reason: public.FinishReason | None, error: SegueError | None) -> None:
        if self.finished:
            return
        self.finish_reason, self.error = reason, error
        if reason == public.FINISH_REASON_TAKEN_OVER:
            self.step("take over", os.getpid())
        self.step("finish", os.getpid())
        self.measured.entered(RequestState.FINISHED)
        self.state = RequestState.FINISHED
        self._watch.ended(self, record_of(self))
        if self._run_task is not None:
            self._run_task.cancel()  # closes the worker streams, which frees what they hold
        self.notify()

    # ---- readers

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change of anything a reader shows, then replaced."""
        return self._changed

    def notify(self) -> None:
        """Wake every reader."""
        self._changed.set()
        self._changed = asyncio.Event()
