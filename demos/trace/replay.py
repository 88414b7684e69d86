"""One policy over all requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from demos.trace.case import Case
from demos.trace.events import Events
from demos.trace.gateway import Load
from demos.trace.outcome import Outcome
from demos.trace.policies import Policy
from demos.trace.requests import Request


@dataclass
class Replay:
    """What came of it."""

    outcomes: list[Outcome]
    load: Load
    span_s: float


def replay(
    policy: Policy,
    case: Case,
    requests: Sequence[Request],
    *,
    prefill_workers: int | None = None,
    load: float = 1.0,
    progress: Callable[[int], None] = lambda done: None,
) -> Replay:
    """Run all `requests`, `load` times as often as they came; one cluster is idle at the end.

    `progress` is told how many answers are over.
    """
    events = Events()
    gateway = policy.gateway(events, case, prefill_workers or case.cloud.prefill_workers)
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        progress(len(outcomes))

    waiting = iter(requests)

    def next_request() -> None:
        # One at a time, so that those to come do not fill the queue.
        request = next(waiting, None)
        if request is None:
            return
        request = replace(request, at_s=request.at_s / load)
        events.at(request.at_s, lambda: begin(request))

    def begin(request: Request) -> None:
        policy.begin(events, case, request, done, gateway)
        next_request()

    next_request()
    events.run()
    if gateway is not None:
        gateway.check_idle()
    assert len(outcomes) == len(requests), (len(outcomes), len(requests))
    return Replay(outcomes, gateway.load if gateway is not None else Load(), events.now_s)
