"""The requests of a replay: lengths and times of a trace, and what no trace tells."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from demos.trace.case import Case


@dataclass(frozen=True, slots=True)
class Request:
    """One request. The modelled part is drawn from `seed`, alike for every policy."""

    index: int
    at_s: float
    prompt_tokens: int
    # The answer's true length, which nobody knows before its end.
    output_tokens: int
    max_tokens: int
    # Leading prompt tokens that the device holds from an earlier turn.
    cached_tokens: int
    # True speed of the device during this answer over that of its profile.
    speed: float
    seed: int

    def chance(self, purpose: str) -> random.Random:
        """A source of chance of its own for each purpose, so that none disturbs another."""
        return random.Random(f"{self.seed} {self.index} {purpose}")


def draw_requests(
    arrivals: Iterable[tuple[float, int, int]], case: Case, seed: int
) -> list[Request]:
    """Requests of (time in seconds, prompt tokens, output tokens)."""
    rng = random.Random(seed)
    requests = []
    for index, (at_s, prompt_tokens, output_tokens) in enumerate(arrivals):
        jitter, reuse = case.device.speed_jitter, case.reuse
        speed = rng.uniform(1 - jitter, 1 + jitter)
        continued, part = rng.random() < reuse.share, rng.uniform(reuse.least, reuse.most)
        cached = min(int(prompt_tokens * part), prompt_tokens - 1) if continued else 0
        requests.append(
            Request(
                index=index,
                at_s=at_s,
                prompt_tokens=prompt_tokens,
                output_tokens=min(output_tokens, case.max_tokens),
                max_tokens=case.max_tokens,
                cached_tokens=cached,
                speed=speed,
                seed=seed,
            )
        )
    return requests
