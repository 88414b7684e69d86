"""All policies of one case over one workload, in as many processes as are asked for."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from demos.trace.capacity import capacity
from demos.trace.case import Case
from demos.trace.figures import figures, oracle_tokens
from demos.trace.policies import POLICIES
from demos.trace.replay import replay
from demos.trace.requests import draw_requests

# Of the policy whose device prefills whole prompts: its oracle knows more, not another way.
ORACLE_OF = "split"
LOOK_S = 0.2

Arrivals = Sequence[tuple[float, int, int]]


@dataclass(frozen=True)
class Job:
    """One policy over one workload; without `search` requests its capacity is not looked for."""

    policy: str
    case: Case
    arrivals: Arrivals
    search: int
    seed: int

    def run(self, progress: Callable[[int], None]) -> dict[str, Any]:
        """The policy's row, and what an oracle would have taken."""
        policy = POLICIES[self.policy]
        requests = draw_requests(self.arrivals, self.case, self.seed)
        done = 0

        def count(answers: int) -> None:
            nonlocal done
            if answers % 100 == 0 or answers == len(requests):
                progress(answers - done)
                done = answers

        began_s = time.process_time()
        found = replay(policy, self.case, requests, progress=count)
        row = figures(found.outcomes, self.case)
        row["oracle_tokens"] = oracle_tokens(found.outcomes)
        row["cpu_s"] = time.process_time() - began_s
        if self.search:
            sample = requests[: self.search]
            row |= asdict(capacity(policy, self.case, sample))
        return row


_answers: Synchronized[int]


def _share(answers: Synchronized[int]) -> None:
    global _answers
    _answers = answers


def _add(answers: int) -> None:
    with _answers.get_lock():
        _answers.value += answers


def _run(job: Job) -> dict[str, Any]:
    return job.run(_add)


def run_all(
    jobs: Sequence[Job],
    *,
    processes: int = 2,
    progress: Callable[[int, int, int], None] = lambda answers, rows, all_rows: None,
) -> tuple[list[dict[str, Any]], float]:
    """Rows in the order of `jobs`, and the seconds it took.

    `progress` is told the answers replayed and the rows done. One process runs them here.
    """
    started_s = time.monotonic()
    if processes == 1:
        total, rows = 0, list[dict[str, Any]]()

        def count(answers: int) -> None:
            nonlocal total
            total += answers
            progress(total, len(rows), len(jobs))

        for job in jobs:
            rows.append(job.run(count))
        return rows, time.monotonic() - started_s
    context = multiprocessing.get_context("spawn")
    answers: Synchronized[int] = context.Value("q", 0)
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_share, initargs=(answers,)
    ) as pool:
        futures: list[Future[dict[str, Any]]] = [pool.submit(_run, job) for job in jobs]
        left = set(futures)
        while left:
            done, left = wait(left, timeout=LOOK_S)
            for future in done:
                future.result()  # an error ends the run at once
            progress(answers.value, len(jobs) - len(left), len(jobs))
    return [future.result() for future in futures], time.monotonic() - started_s
