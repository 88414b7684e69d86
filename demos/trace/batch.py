"""A continuous batch on one accelerator, simulated from one change of the batch to the next.

While the same sequences decode, steps follow one another without an event: their
times are a closed form of the step's number, since every context grows by one
token a step. A change (somebody joins, leaves, stops) takes effect where the
step that is under way ends.

With `iteration_tokens` the instance also prefills, as an aggregated one does: each step
takes all decodes first, then prompt chunks within that budget.
"""

from __future__ import annotations

import heapq
import itertools
import math
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from demos.trace.events import Alarm, Events
from segue_cloud.profiles.base import CloudProfile


@dataclass(eq=False, slots=True)
class Decoding:
    """One sequence in the batch, until `tokens` more were made or it leaves."""

    # Cells of its context in its first step, that step's own token included.
    context_tokens: int
    tokens: int
    # Somebody follows every token; else they are told together at the end.
    watched: bool
    made: Callable[[Sequence[float]], None]
    stopped: Callable[[], None]
    first_step: int = field(default=0, init=False)
    left: bool = field(default=False, init=False)


@dataclass(eq=False, slots=True)
class Prompt:
    """One prompt that an aggregated instance prefills in chunks."""

    tokens: int
    done: Callable[[], None]
    prefilled: int = field(default=0, init=False)


class BatchInstance:
    """The accelerator: what it runs now, and for how long."""

    def __init__(self, events: Events, profile: CloudProfile, *, iteration_tokens: int = 0) -> None:
        self.busy_s = 0.0
        self._events = events
        self._profile = profile
        self._iteration_tokens = iteration_tokens
        self._running: set[Decoding] = set()
        self._watched: list[Decoding] = []
        self._joining: list[Decoding] = []
        self._stops: list[tuple[int, int, Decoding]] = []
        self._turn = itertools.count()
        self._prompts: deque[Prompt] = deque()
        # Sum of the contexts in the next step [tokens].
        self._context_tokens = 0
        self._ends_s = array("d")  # when each step ended
        self._planned = 0  # steps of the present stretch; 0 while idle
        self._ending = False  # changes are taken in after it
        self._began_s = 0.0
        self._chunks: list[tuple[Prompt, int]] = []
        self._start = Alarm(events, self._begin)
        self._alarm = Alarm(events, self._stretch_ended)

    @property
    def running(self) -> int:
        """Sequences that decode, or will from the next step on."""
        return len(self._running) + len(self._joining)

    @property
    def prompts(self) -> int:
        """Prompts that are not all prefilled."""
        return len(self._prompts)

    def join(self, sequence: Decoding) -> None:
        """Decode from the next step on."""
        self._joining.append(sequence)
        self._change()

    def extend(self, sequence: Decoding, tokens: int) -> None:
        """Let a sequence that has not stopped make so many more."""
        sequence.tokens += tokens
        if sequence in self._running:
            self._expect_stop(sequence)

    def leave(self, sequence: Decoding) -> None:
        """Stop a watched sequence; of the step that is under way it gets no token."""
        sequence.left = True
        if sequence in self._joining:
            self._joining.remove(sequence)
        elif sequence in self._running:
            self._change()

    def prefill(self, prompt: Prompt) -> None:
        """Prefill in turn, beside what decodes."""
        self._prompts.append(prompt)
        self._change()

    def abandon(self, prompt: Prompt) -> None:
        """Take a prompt out, after the step that is under way."""
        if prompt in self._prompts:
            self._prompts.remove(prompt)

    # ---- stretches of steps

    def _change(self) -> None:
        if self._ending:
            return
        if not self._planned:
            self._start.set(self._events.now_s)  # with whoever else comes at this moment
            return
        steps = self._steps_until(self._events.now_s)
        if steps < self._planned:
            self._planned = steps
            self._alarm.set(self._end_s(steps))

    def _begin(self) -> None:
        """Take in who joins, and plan steps until the first known change."""
        for sequence in self._joining:
            sequence.first_step = len(self._ends_s)
            self._running.add(sequence)
            if sequence.watched:
                self._watched.append(sequence)
            self._expect_stop(sequence)
            self._context_tokens += sequence.context_tokens
        self._joining.clear()
        self._began_s = self._events.now_s
        self._chunks = self._next_chunks()
        if not self._running and not self._chunks:
            return
        single = bool(self._watched) or bool(self._chunks)
        self._planned = 1 if single else self._stops[0][0] - len(self._ends_s)
        self._alarm.set(self._end_s(self._planned))

    def _next_chunks(self) -> list[tuple[Prompt, int]]:
        room = self._iteration_tokens - len(self._running)
        chunks = []
        for prompt in self._prompts:
            tokens = min(prompt.tokens - prompt.prefilled, room)
            if tokens < 1:
                break
            chunks.append((prompt, tokens))
            room -= tokens
        return chunks

    def _stretch_ended(self) -> None:
        steps, self._ending = self._planned, True
        self._ends_s.extend(self._end_s(step) for step in range(1, steps + 1))
        self.busy_s += self._events.now_s - self._began_s
        self._context_tokens += steps * len(self._running)
        for sequence in self._watched:
            if not sequence.left:
                sequence.made(self._ends_s[-steps:])
        self._drop_left()
        self._stop_finished()
        for prompt, tokens in self._chunks:
            prompt.prefilled += tokens
            if prompt.prefilled == prompt.tokens and prompt in self._prompts:
                self._prompts.remove(prompt)
                prompt.done()
        self._planned, self._ending = 0, False
        self._begin()

    def _drop_left(self) -> None:
        left = [each for each in self._watched if each.left and each in self._running]
        for sequence in left:
            self._take_out(sequence)
        if left:
            self._watched = [each for each in self._watched if each in self._running]

    def _stop_finished(self) -> None:
        step = len(self._ends_s)
        while self._stops and self._stops[0][0] <= step:
            stop, _, sequence = heapq.heappop(self._stops)
            if sequence.left or stop != sequence.first_step + sequence.tokens:
                continue  # gone, or extended since
            sequence.left = True
            self._take_out(sequence)
            if sequence.watched:
                self._watched.remove(sequence)
            else:
                sequence.made(self._ends_s[sequence.first_step : stop])
            sequence.stopped()

    def _expect_stop(self, sequence: Decoding) -> None:
        stop = sequence.first_step + sequence.tokens
        heapq.heappush(self._stops, (stop, next(self._turn), sequence))

    def _take_out(self, sequence: Decoding) -> None:
        self._running.remove(sequence)
        steps = len(self._ends_s) - sequence.first_step
        self._context_tokens -= sequence.context_tokens + steps

    # ---- the time of steps

    def _end_s(self, steps: int) -> float:
        """When `steps` steps of this stretch have ended."""
        first_s, growth_s = self._step_s()
        return self._began_s + steps * first_s + growth_s * steps * (steps - 1) / 2

    def _steps_until(self, moment_s: float) -> int:
        """Steps of this stretch that end at `moment_s` or are under way then."""
        first_s, growth_s = self._step_s()
        passed_s, half_s = moment_s - self._began_s, first_s - growth_s / 2
        if growth_s > 0:
            steps = (math.sqrt(half_s**2 + 2 * growth_s * passed_s) - half_s) / growth_s
        else:
            steps = passed_s / first_s
        whole = max(1, math.ceil(steps))
        while whole > 1 and self._end_s(whole - 1) >= moment_s:
            whole -= 1
        while self._end_s(whole) < moment_s:
            whole += 1
        return whole

    def _step_s(self) -> tuple[float, float]:
        """Seconds of the first step of this stretch, and by how much each next one is longer."""
        batch = len(self._running)
        seconds = growth_s = 0.0
        if batch:
            cost = self._profile.decode_cost(batch)
            growth_s = cost.per_context_token_s * batch
            seconds = cost.base_s + cost.per_context_token_s * self._context_tokens
            seconds += cost.per_request_s * batch
        if self._chunks:
            prefill = self._profile.prefill
            seconds += prefill.seconds(
                [(prompt.prefilled, prompt.prefilled + tokens) for prompt, tokens in self._chunks]
            )
            if batch:  # one pass reads the weights once
                seconds -= min(prefill.base_s, cost.base_s)
        return seconds, growth_s
