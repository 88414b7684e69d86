"""How many requests a second an instance can take: bisection over the load, at the best ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from demos.trace.case import Case
from demos.trace.figures import attainment, binding
from demos.trace.policies import Cloud, Policy
from demos.trace.replay import Replay, replay
from demos.trace.requests import Request
from segue_cloud.cluster.ratio import RatioView, balanced_prefill_workers

# The bisection ends when the load is known to within this.
PRECISION = 0.04
MIN_LOAD = 0.1
# Nothing gives out that is tried up to here: devices hardly need the cloud.
MAX_LOAD = 50.0
STEP = 1.3
# Of what the workers could bear if requests came evenly: where the search begins.
HEADROOM = 0.7
# A neighbouring ratio is tried when it bears this much more than the best so far.
BETTER = 1.03


@dataclass(frozen=True)
class Capacity:
    """The highest load with enough answers in time, and what gave out above it."""

    rps_per_instance: float | None
    prefill_workers: int | None
    binding: str | None


def capacity(
    policy: Policy,
    case: Case,
    requests: Sequence[Request],
    progress: Callable[[int], None] = lambda done: None,
) -> Capacity:
    """Search with `requests` as the sample, faster and faster in time.

    None where the policy needs no cloud: then there is nothing to be counted.
    """
    case = searched(case)
    cloud = case.cloud
    if policy.cloud is Cloud.NONE:
        found = replay(policy, case, requests, progress=progress)
        return Capacity(None, None, binding(found.outcomes, case.targets))
    search = _Search(policy, case, requests, progress)
    if policy.cloud is Cloud.AGGREGATED:
        load = search.highest_load(1.5 * cloud.instances, 0)
        return search.capacity(load, None)
    workers, guess_rps = _balanced(search.run(cloud.instances, cloud.instances // 2), case)
    best = search.highest_load(guess_rps, workers)
    if not best:  # nobody is served in time however few come, with any ratio
        return search.capacity(best, workers)
    for step in (-1, 1):
        while 0 < workers + step < cloud.instances and search.passes(best * BETTER, workers + step):
            workers += step
            best = search.highest_load(best * BETTER, workers, floor_rps=best * BETTER)
    return search.capacity(best, workers)


def searched(case: Case) -> Case:
    """The case with as many instances as the search has."""
    return replace(case, cloud=replace(case.cloud, instances=case.cloud.search_instances))


class _Search:
    """Runs of one policy at loads in requests a second."""

    def __init__(
        self,
        policy: Policy,
        case: Case,
        requests: Sequence[Request],
        progress: Callable[[int], None],
    ) -> None:
        self._policy, self._case, self._requests = policy, case, requests
        self._progress = progress
        self._own_rps = len(requests) / requests[-1].at_s
        # What gave out just above the highest load that passed.
        self._failed_by: str | None = None
        self._bound: dict[tuple[float, int], str | None] = {}

    def run(self, rps: float, prefill_workers: int) -> Replay:
        return replay(
            self._policy,
            self._case,
            self._requests,
            prefill_workers=prefill_workers,
            load=rps / self._own_rps,
            progress=self._progress,
        )

    def passes(self, rps: float, prefill_workers: int) -> bool:
        """Whether enough answers meet every target."""
        outcomes = self.run(rps, prefill_workers).outcomes
        targets = self._case.targets
        good = attainment(outcomes, targets) >= targets.attainment
        if not good:
            self._failed_by = binding(outcomes, targets)
        return good

    def highest_load(self, guess_rps: float, prefill_workers: int, floor_rps: float = 0.0) -> float:
        """In requests a second; 0 when even a light load is too much.

        `floor_rps` is known to pass.
        """
        lightest = MIN_LOAD * self._case.cloud.instances
        low = high = max(guess_rps, lightest)
        if self.passes(high, prefill_workers):
            most = MAX_LOAD * self._case.cloud.instances
            while self.passes(high := low * STEP, prefill_workers):
                low = high
                if low > most:
                    self._failed_by = None
                    return self._note(low, prefill_workers)
        else:
            while (low := high / STEP) > floor_rps and not self.passes(low, prefill_workers):
                high = low
                if low < lightest:
                    return self._note(0.0, prefill_workers)
            low = max(low, floor_rps)
        while high / low > 1 + PRECISION:
            middle = (low * high) ** 0.5
            if self.passes(middle, prefill_workers):
                low = middle
            else:
                high = middle
        return self._note(low, prefill_workers)

    def _note(self, rps: float, prefill_workers: int) -> float:
        self._bound[rps, prefill_workers] = self._failed_by
        return rps

    def capacity(self, rps: float, prefill_workers: int | None) -> Capacity:
        return Capacity(
            rps / self._case.cloud.instances,
            prefill_workers,
            self._bound[rps, prefill_workers or 0],
        )


def _balanced(found: Replay, case: Case) -> tuple[int, float]:
    """Prefill workers by the cluster's own ratio rule, and the load they might bear [1/s]."""
    load, cloud = found.load, case.cloud
    calls = max(1, load.calls)
    places_by_memory = cloud.pages * cloud.page_tokens * calls / max(1, load.reserved_tokens)
    view = RatioView(
        prefill_workers=1,
        decode_workers=cloud.instances - 1,
        prefill_s=load.prefill_s / calls,
        decode_s=load.place_s / calls,
        decode_places=max(1, min(cloud.max_batch, int(places_by_memory))),
        rejected_share=0.0,
    )
    workers = balanced_prefill_workers(view)
    if workers is None:  # nobody asked the cloud
        return 1, cloud.instances
    asked = calls / len(found.outcomes)
    busy_s = (view.prefill_s or 0.0) + (view.decode_s or 0.0) / view.decode_places
    return (
        min(cloud.instances - 1, max(1, round(workers))),
        HEADROOM * cloud.instances / (asked * busy_s),
    )
