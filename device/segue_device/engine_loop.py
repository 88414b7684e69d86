"""The engine's task in one answer: prefill, absorb, take over, decode."""

from __future__ import annotations

import anyio

from segue_device import events
from segue_device.answer import Answer
from segue_device.catch_up import View, Work, next_work, wait_s
from segue_device.engines.base import Cancel
from segue_device.engines.runner import Runner
from segue_device.state import DeviceState
from segue_device.token_log import Source
from segue_protocol.errors import Cancelled, InternalError, SegueError
from segue_protocol.prefix import prefix_hash
from segue_protocol.sampling import sample
from segue_protocol.wire import public

# A caught-up device gives a cloud that owes tokens this long, or two intervals, while
# there is something to show; after that, no longer than a token of its own would take.
MIN_PATIENCE_S = 0.2


class EngineLoop:
    """Runs one engine for one answer, from the cells it shares with the prompt to the end."""

    def __init__(self, answer: Answer, runner: Runner) -> None:
        self._answer = answer
        self._runner = runner
        self._prompt_ids = answer.request.prompt_ids
        self._begun = False

    async def run(self) -> None:
        """Work until the answer is over. Never raises a SegueError: it becomes the answer's."""
        answer = self._answer
        try:
            while not answer.over:
                try:
                    if not await self._step():
                        return
                except Cancelled:
                    if not answer.over:  # stopped in mid-work: the app sleeps, or a rest begins
                        await self._find_place()
        except SegueError as error:
            self._lost(error)

    async def _step(self) -> bool:
        """One piece of work, or a wait; False when there is none any more."""
        view = self._view()
        work = next_work(view)
        if work is Work.STOP:
            return False
        if work is Work.WAIT:
            await self._wait(view)
            return True
        if not self._begun:
            await self._begin()
        elif work is Work.PREFILL:
            await self._prefill_chunk()
        elif work is Work.ABSORB:
            await self._absorb()
        elif work is Work.TAKE_OVER:
            self._take_over()
        else:
            await self._decode()
        return True

    def _view(self) -> View:
        answer = self._answer
        return View(
            prefill_left_tokens=answer.prompt.left_tokens,
            absorbed_tokens=answer.absorbed_tokens,
            log_tokens=len(answer.log),
            credit_through=answer.credit_through,
            device_writes=answer.log.writer is Source.DEVICE,
            cloud_alive=answer.cloud_alive,
            takeover_forced=answer.takeover_forced,
            over=answer.over,
            paused=answer.suspended or (answer.rests and answer.cloud_alive),
            silence_s=anyio.current_time() - answer.last_cloud_s,
            patience_s=self._patience_s(),
        )

    def _patience_s(self) -> float:
        interval_s = self._answer.show_interval_s
        return max(MIN_PATIENCE_S, 2 * interval_s) if self._answer.display.backlog else interval_s

    async def _wait(self, view: View) -> None:
        await self._answer.wait(wait_s(view))
        if view.paused and self._begun:
            self._answer.prefill_clock.start(anyio.current_time())
            self._answer.decode_clock.pause()

    async def _begin(self) -> None:
        """Keep the cells that are this prompt's; the client has compared them."""
        await self._keep_cells(self._answer.request.cached_cells)
        self._begun = True
        self._answer.prefill_clock.start(anyio.current_time())

    async def _keep_cells(self, cells: int) -> None:
        if not await self._runner.rewind(cells):
            raise InternalError(
                f"the device engine cannot go back to {cells} cells; load it again",
                reason="REWIND_REFUSED",
            )

    async def _find_place(self) -> None:
        """After an append that was stopped: go on from the cells that it had finished."""
        answer = self._answer
        answer.engine_cancel = Cancel()
        cells = self._runner.cells
        if cells and cells[-1][0] + 1 == len(self._prompt_ids) + len(answer.log):
            await self._keep_cells(len(cells) - 1)  # nothing would follow to give logits
            cells = cells[:-1]
        position = cells[-1][0] + 1 if cells else 0
        answer.prompt.move_to(position)
        answer.absorbed_tokens = max(0, position - len(self._prompt_ids))

    async def _prefill_chunk(self) -> None:
        answer, prompt = self._answer, self._answer.prompt
        chunk = prompt.claim_chunk(self._runner.capabilities.chunk_tokens)
        ids = [self._prompt_ids[position] for position in chunk]
        await self._runner.append(ids, chunk, cancel=answer.engine_cancel)
        prompt.move_to(chunk[-1] + 1)
        answer.prefill_clock.observe(prompt.done_tokens, anyio.current_time())
        answer.pending.append(events.PrefillProgress(prompt.done_tokens, prompt.kept_tokens))
        if not prompt.left_tokens and answer.state is DeviceState.CLOUD:
            answer.enter(DeviceState.CATCHING_UP)
        answer.extend_credit()
        answer.notify()

    async def _absorb(self) -> None:
        """Every token of the log that is not in the cache, as one more prefill."""
        answer = self._answer
        start, end = answer.absorbed_tokens, len(answer.log)
        first = len(self._prompt_ids) + start
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
        digest = prefix_hash(self._prompt_ids, answer.log.ids)
        takeover = public.Takeover(index=index, prefix_hash=digest)
        answer.send(public.GenerateRequest(takeover=takeover))
        answer.notify()

    async def _decode(self) -> None:
        answer = self._answer
        chosen = sample(
            await self._runner.logits(),
            answer.request.sampling,
            prompt_ids=self._prompt_ids,
            output_ids=answer.log.ids,
            index=len(answer.log),
        )
        if answer.over or answer.log.writer is not Source.DEVICE:
            return  # cancelled, or given back, while the logits were fetched
        now_s = anyio.current_time()
        answer.min_margin = min(answer.min_margin, chosen.margin)
        answer.decode_clock.made(now_s)
        answer.log.append_from_device(chosen.token_id, now_s, chosen.logprob)
        answer.token_appended(chosen.token_id)
        answer.notify()

    def _lost(self, error: SegueError) -> None:
        """The cloud goes on alone if it can; else the answer fails."""
        answer = self._answer
        if not answer.over and not answer.lose_engine(f"device engine: {error.message}"):
            answer.fail(error)
