"""What one answer took, on the gateway's clock."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from segue_cloud.gateway.state import RequestState
from segue_protocol.wire import public


def _now_s() -> float:
    # Not anyio's clock: leases end in callbacks of the loop, outside of any task.
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Measured:
    """Durations, the named steps, and what had to be done twice."""

    created_s: float = field(default_factory=_now_s)
    # The one time of day: when `created_s` was, for logs and traces.
    created_unix_s: float = field(default_factory=time.time)
    first_token_s: float | None = None
    last_token_s: float | None = None
    ended_s: float | None = None
    waiting_s: float = 0.0
    prefill_s: float = 0.0
    list_s: float = 0.0  # of `prefill_s`, until the prompt was refined
    transfer_s: float = 0.0
    slot_s: float = 0.0
    recomputed_tokens: int = 0
    cached_tokens: int = 0  # of prompt and output prefix, not computed at first
    steps: list[public.LifeStep] = field(default_factory=list)
    # Every state with its begin, in seconds since `created_s`.
    phases: list[tuple[RequestState, float]] = field(
        default_factory=lambda: [(RequestState.WAITING, 0.0)]
    )
    _decoding_since_s: float | None = None

    def step(self, name: str, pid: int) -> None:
        """A named step of the answer's life (DESIGN 3), taken by process `pid`."""
        at_s = _now_s() - self.created_s
        self.steps.append(public.LifeStep(name=name, pid=pid, at_s=at_s))

    def entered(self, state: RequestState) -> None:
        """Account for the time in the state that ends now."""
        now_s = _now_s()
        self.phases.append((state, now_s - self.created_s))
        if self._decoding_since_s is not None:
            self.slot_s += now_s - self._decoding_since_s
            self._decoding_since_s = None
        if state is RequestState.DECODING:
            self._decoding_since_s = now_s
        elif state is RequestState.PREFILLING and self.first_token_s is None:
            self.waiting_s = now_s - self.created_s
        elif state is RequestState.FINISHED:
            self.ended_s = now_s

    def appended(self) -> float | None:
        """Tokens came; the seconds since those before them, None: they are the first."""
        now_s, before_s = _now_s(), self.last_token_s
        self.last_token_s = now_s
        if before_s is None:
            self.first_token_s = now_s
            return None
        return now_s - before_s

    def timings(self) -> public.CloudTimings:
        """The account a device gets at the end."""
        decode_s = 0.0
        if self.first_token_s is not None and self.ended_s is not None:
            decode_s = self.ended_s - self.first_token_s
        return public.CloudTimings(
            waiting_s=self.waiting_s,
            prefill_s=self.prefill_s,
            transfer_s=self.transfer_s,
            decode_s=decode_s,
            slot_s=self.slot_s,
            list_s=self.list_s,
        )
