"""Timing an engine: whole prompts and decode steps of several sizes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from segue_cloud.engine.base import Chunk, CloudEngine
from segue_cloud.kv.layout import Cells
from segue_cloud.kv.ledger import PageLedger
from segue_cloud.profiles.base import CloudProfile
from segue_cloud.profiles.fit import fit_decode, fit_prefill

REPEATS = 5
PAGE_TOKENS = 16

PREFILLS: Sequence[tuple[int, ...]] = (
    *((tokens,) for tokens in (16, 32, 64, 128, 256, 512, 1024, 2048)),
    *((64,) * 4, (128,) * 4, (256,) * 4, (64, 128, 256, 512)),
)
DECODES: Sequence[tuple[int, ...]] = tuple(
    (context,) * batch for batch in (1, 2, 4, 8, 16, 32) for context in (16, 128, 512, 1024)
)


def measure_profile(
    engine: CloudEngine, *, source: str, clock: Callable[[], float] = time.perf_counter
) -> CloudProfile:
    """Time `engine` and fit both costs. What its context has no room for is left out."""
    room = engine.max_context_tokens
    prefills = [each for each in PREFILLS if max(each) <= room]
    decodes = [each for each in DECODES if max(each) <= room]
    prefill, prefill_fit = fit_prefill(
        {each: _median_s(engine, [(0, n) for n in each], clock) for each in prefills}
    )
    decode, decode_fit = fit_decode(
        {each: _median_s(engine, [(n - 1, n) for n in each], clock) for each in decodes}
    )
    identity = engine.identity
    return CloudProfile(
        name=identity.model,
        source=source,
        model=identity.model,
        weights_digest=identity.weights_digest.hex(),
        prefill=prefill,
        decode=(decode,),
        prefill_fit=prefill_fit,
        decode_fit=decode_fit,
    )


def _median_s(
    engine: CloudEngine, spans: Sequence[tuple[int, int]], clock: Callable[[], float]
) -> float:
    """Seconds of one pass over the tokens from `start` to `end` of every sequence.

    Their values do not matter to the time; the cells lie in pages, as a worker's do.
    """
    pages = sum(-(-end // PAGE_TOKENS) for _, end in spans)
    ledger = PageLedger(pages, PAGE_TOKENS)
    chunks = []
    for start, end in spans:
        table = ledger.reserve(end)
        assert table is not None
        chunks.append(Chunk([0] * (end - start), range(start, end), table.cells(end)))
    cells: Cells = np.zeros(engine.layout.shape(pages * PAGE_TOKENS), engine.layout.storage_dtype)
    engine.forward(cells, chunks)  # the first pass of a size allocates
    times_s = []
    for _ in range(REPEATS):
        started_s = clock()
        engine.forward(cells, chunks)
        times_s.append(clock() - started_s)
    return statistics.median(times_s)
