"""Lengths and arrivals of requests; no prompt text is in any of them."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

# Log-normal, through the median and the 90th percentile of the Azure LLM inference trace 2023,
# conversation (CC-BY 4.0, Azure Public Dataset; Patel et al., "Splitwise", ISCA 2024).
INPUT_MEDIAN, INPUT_P90 = 1020, 2735
OUTPUT_MEDIAN, OUTPUT_P90 = 129, 424
SYNTHETIC = "synthetic, log-normal with median and p90 of the Azure conversation trace"
_P90_SIGMAS = 1.2816
# Of a share of requests in time, less would say nothing.
LEAST = 30


@dataclass(frozen=True)
class Length:
    """Tokens of one request."""

    prompt: int
    output: int


@dataclass(frozen=True)
class Arrival:
    """One request of an open-loop workload."""

    at_s: float
    length: Length


def read_trace(path: Path) -> list[Length]:
    """Lengths of a CSV with the columns ContextTokens and GeneratedTokens."""
    with path.open(newline="") as file:
        return [
            Length(int(row["ContextTokens"]), int(row["GeneratedTokens"]))
            for row in csv.DictReader(file)
        ]


def synthetic(seed: int, count: int) -> list[Length]:
    """Lengths from the distributions above."""
    rng = random.Random(seed)
    return [
        Length(
            _log_normal(rng, INPUT_MEDIAN, INPUT_P90), _log_normal(rng, OUTPUT_MEDIAN, OUTPUT_P90)
        )
        for _ in range(count)
    ]


def fitting(lengths: list[Length], max_context_tokens: int) -> list[Length]:
    """Those that a context has room for."""
    return [
        each
        for each in lengths
        if each.prompt and each.output and each.prompt + each.output <= max_context_tokens
    ]


def poisson(lengths: list[Length], rate_rps: float, duration_s: float, seed: int) -> list[Arrival]:
    """Arrivals at `rate_rps` for `duration_s`, their lengths drawn from `lengths`."""
    rng = random.Random(seed)
    arrivals: list[Arrival] = []
    at_s = rng.expovariate(rate_rps)
    while at_s < duration_s:
        arrivals.append(Arrival(at_s, rng.choice(lengths)))
        at_s += rng.expovariate(rate_rps)
    return arrivals


def requests_at(
    lengths: Sequence[Length], rate_rps: float, span_s: float, seed: int
) -> list[Arrival]:
    """Poisson arrivals over `span_s`, :data:`LEAST` at least.

    With another rate the same, only nearer or farther in time, and more or fewer.
    """
    rng = random.Random(seed)
    arrivals: list[Arrival] = []
    at_s = 0.0
    while at_s < span_s or len(arrivals) < LEAST:
        at_s += rng.expovariate(1.0) / rate_rps
        arrivals.append(Arrival(at_s, rng.choice(lengths)))
    return arrivals


def _log_normal(rng: random.Random, median: float, p90: float) -> int:
    sigma = math.log(p90 / median) / _P90_SIGMAS
    return max(1, round(rng.lognormvariate(math.log(median), sigma)))


def read_arrivals(path: Path) -> list[Arrival]:
    """A CSV as for :func:`read_trace`, at its own times from 0 on; rows without tokens left out."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    arrivals = []
    # Seven fractional digits are one more than a time holds.
    began = datetime.fromisoformat(rows[0]["TIMESTAMP"][:26])
    for row in rows:
        at = datetime.fromisoformat(row["TIMESTAMP"][:26])
        length = Length(int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        if length.prompt and length.output:
            arrivals.append(Arrival((at - began).total_seconds(), length))
    return arrivals


def repeated(arrivals: list[Arrival], count: int) -> list[Arrival]:
    """The first `count`, beginning again where there are no more."""
    span_s = arrivals[-1].at_s + arrivals[-1].at_s / len(arrivals)
    return [
        Arrival(arrivals[place % len(arrivals)].at_s + place // len(arrivals) * span_s, length)
        for place in range(count)
        for length in [arrivals[place % len(arrivals)].length]
    ]
