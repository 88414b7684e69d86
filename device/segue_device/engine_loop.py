"""The engine's task in one answer: prefill, absorb, take over, decode."""

from __future__ import annotations

import anyio

from segue_device import events
from segue_device.answer import Answer
from segue_device.catch_up import View, Work, next_work, wait_s
from segue_device.engines.runner import Runner
from segue_device.state import DeviceState
from segue_device.token_log import Source
from segue_protocol.errors import SegueError
from segue_protocol.prefix import prefix_hash
from segue_protocol.sampling import sample
from segue_protocol.wire import public

# A caught-up device gives a cloud that owes tokens this long, or two intervals.
MIN_PATIENCE_S = 0.2


class EngineLoop:
    """Runs one engine for one answer, from the cells it shares with the prompt to the end."""

    def __init__(self, answer: Answer, runner: Runner) -> None:
        self._answer = answer
        self._runner = runner
        self._prompt = answer.request.prompt_ids

    async def run(self) -> None:
        """Work until the answer is over. Never raises a SegueError: it becomes the answer's."""
        answer = self._answer
        try:
            while answer.request.device_standby and answer.cloud_alive and not answer.over:
                await answer.wait()
            # The client has compared the cells; what follows them is not this prompt.
            await self._runner.rewind(answer.request.cached_tokens)
            answer.prefill_clock.start(anyio.current_time())
            while True:
                view = self._view()
                work = next_work(view)
                if work is Work.STOP:
                    return
                if work is Work.PREFILL:
                    await self._prefill_chunk()
                elif work is Work.ABSORB:
                    await self._absorb()
                elif work is Work.TAKE_OVER:
                    self._take_over()
                elif work is Work.DECODE:
                    await self._decode()
                else:
                    await answer.wait(wait_s(view))
        except SegueError as error:
            if not answer.over:
                self._lost(error)

    def _view(self) -> View:
        answer = self._answer
        return View(
            prompt_tokens=len(self._prompt),
            prefilled_tokens=answer.prefilled_tokens,
            absorbed_tokens=answer.absorbed_tokens,
            log_tokens=len(answer.log),
            credit_through=answer.credit_through,
            device_writes=answer.log.writer is Source.DEVICE,
            cloud_alive=answer.cloud_alive,
            takeover_forced=answer.takeover_forced,
            over=answer.over,
            silence_s=anyio.current_time() - answer.last_cloud_s,
            patience_s=max(MIN_PATIENCE_S, 2 * answer.show_interval_s),
        )

    async def _prefill_chunk(self) -> None:
        answer = self._answer
        start = answer.prefilled_tokens
        end = min(start + self._runner.capabilities.chunk_tokens, len(self._prompt))
        await self._runner.append(
            self._prompt[start:end], range(start, end), cancel=answer.engine_cancel
        )
        answer.prefilled_tokens = end
        answer.prefill_clock.observe(end, anyio.current_time())
        answer.pending.append(events.PrefillProgress(end, len(self._prompt)))
        if end == len(self._prompt) and answer.state is DeviceState.CLOUD:
            answer.enter(DeviceState.CATCHING_UP)
        answer.extend_credit()
        answer.notify()

    async def _absorb(self) -> None:
        """Every token of the log that is not in the cache, as one more prefill."""
        answer = self._answer
        start, end = answer.absorbed_tokens, len(answer.log)
        first = len(self._prompt) + start
        await self._runner.append(
            answer.log.ids[start:end],
            range(first, first + end - start),
            cancel=answer.engine_cancel,
        )
        answer.absorbed_tokens = end

    def _take_over(self) -> None:
        """Become the writer and decode on without waiting for a reply."""
        answer = self._answer
        index = answer.log.take_over()
        if answer.state is not DeviceState.DEVICE_ONLY:
            answer.enter(DeviceState.DEVICE)
        digest = prefix_hash(self._prompt, answer.log.ids)
        takeover = public.Takeover(index=index, prefix_hash=digest)
        answer.send(public.GenerateRequest(takeover=takeover))
        answer.notify()

    async def _decode(self) -> None:
        answer = self._answer
        chosen = sample(
            await self._runner.logits(),
            answer.request.sampling,
            prompt_ids=self._prompt,
            output_ids=answer.log.ids,
            index=len(answer.log),
        )
        if answer.over:  # cancelled while the logits were fetched
            return
        answer.min_margin = min(answer.min_margin, chosen.margin)
        answer.log.append_from_device(chosen.token_id, anyio.current_time())
        answer.token_appended(chosen.token_id)
        answer.notify()

    def _lost(self, error: SegueError) -> None:
        """The cloud goes on alone if it still writes; else the answer fails."""
        answer = self._answer
        waiting = answer.state in (DeviceState.CONNECTING, DeviceState.RECONNECTING)
        no_cloud = not answer.cloud_alive and not waiting
        if no_cloud or answer.log.writer is Source.DEVICE:
            answer.fail(error)
            return
        answer.engine_alive = False
        answer.pending.append(events.Fallback(f"device engine: {error.message}"))
        if not waiting:
            answer.enter(DeviceState.CLOUD_ONLY)
        answer.raise_credit(answer.request.max_tokens)
        answer.notify()
