"""Moving the KV of one prompt between two processes: per block, in one call, block-free.

``python -m benchmarks.kv_transfer [--json] [--backends nixl,shm,tcp]``. A child
process holds a prompt's KV as a prefill worker does, this one takes it as a
decode worker does. Everything is real but the model: memory, processes, NIXL
over UCX (within one host: one copy by the kernel), TCP over loopback.

============== ============================================================
per_block      one read a page, layer and plane, straight into the pages
one_call       the same reads, posted together
block_free     contiguous reads and a scatter, as the decode worker does it
raw            one contiguous read of everything, nothing scattered
memcpy_scatter the scatter alone, from memory of this process
============== ============================================================

Seconds; the best of the repetitions, medians beside. What a backend cannot do
(a read of single blocks straight into pages, but by NIXL) is null.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.kv_sender import RemoteSender, make_reader
from segue_cloud.kv.backends.base import TRANSFERS, Deadline, TransferName, require_transfer
from segue_cloud.kv.backends.nixl import LOOPBACK
from segue_cloud.kv.backends.nixl_agent import NixlAgent
from segue_cloud.kv.digest import digest_cells
from segue_cloud.kv.layout import KvLayout
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.scatter import Scatter
from segue_cloud.kv.transfer import KvPuller
from segue_protocol.wire import private

LAYOUTS = {
    "0.5B": KvLayout(num_layers=24, num_kv_heads=2, head_dim=64, dtype="bfloat16"),
    "8B": KvLayout(num_layers=32, num_kv_heads=8, head_dim=128, dtype="bfloat16"),
}
TOKENS = (1024, 4096, 16384)
PAGE_TOKENS = 16
DEADLINE_S = 60.0
# One post a block is slow, and steady.
PER_BLOCK_REPETITIONS = 3

_Runs = list[tuple[int, int, int]]


@dataclass
class Times:
    """What was measured of one way; seconds."""

    all_s: list[float]

    @property
    def best_s(self) -> float:
        return min(self.all_s)

    @property
    def median_s(self) -> float:
        return statistics.median(self.all_s)


def _timed(call: Callable[[], object], repetitions: int) -> Times:
    call()  # memory touched, connection made
    taken = []
    for _ in range(repetitions):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return Times(taken)


class DirectReads:
    """NIXL reads without the pages' bookkeeping: what block-free is compared with."""

    def __init__(self, ticket: private.KvTicket, pool: PagePool, cells: npt.NDArray[np.int64]):
        layout, tokens = pool.layout, ticket.token_count
        total = tokens * layout.bytes_per_token
        self._agent = NixlAgent("segue-benchmark", LOOPBACK)
        self._contiguous = np.zeros(total, np.uint8)
        self._registrations = [
            self._agent.register(pool.cells.ctypes.data, pool.cells.nbytes),
            self._agent.register(self._contiguous.ctypes.data, total),
        ]
        self._peer = self._agent.add_peer(ticket.nixl.metadata)
        there = ticket.nixl.data_address + ticket.layers[0].offset_bytes
        self._whole: _Runs = [(there, int(self._contiguous.ctypes.data), total)]
        row = layout.row_bytes
        starts = np.arange(0, tokens, PAGE_TOKENS)
        sizes = np.minimum(PAGE_TOKENS, tokens - starts) * row
        self._blocks: _Runs = [
            (there + (plane * tokens + start) * row, int(here), int(size))
            for plane in range(2 * layout.num_layers)
            for start, here, size in zip(
                starts.tolist(),
                pool.cells.ctypes.data + (plane * pool.cells.shape[2] + cells[starts]) * row,
                sizes,
                strict=True,
            )
        ]

    @property
    def contiguous(self) -> npt.NDArray[np.uint8]:
        """What `raw` has read."""
        return self._contiguous

    def raw(self) -> None:
        self._read(self._whole)

    def one_call(self) -> None:
        self._read(self._blocks)

    def per_block(self) -> None:
        for block in self._blocks:
            self._read([block])

    def _read(self, runs: _Runs) -> None:
        deadline = Deadline(DEADLINE_S, time.monotonic)
        read = self._agent.read(self._peer, runs)
        while not read.done():
            deadline.left_s()
        read.release()

    def close(self) -> None:
        self._agent.remove_peer(self._peer)
        for registration in self._registrations:
            self._agent.deregister(registration)


def measure(
    backend: TransferName,
    layout_name: str,
    layout: KvLayout,
    tokens: int,
    *,
    repetitions: int = 5,
) -> dict[str, Any]:
    """One case, in two processes; keys as in the issue, seconds, plus medians and ratios."""
    with (
        RemoteSender(backend, layout, slots=1, max_tokens=tokens) as sender,
        _pool(layout, tokens) as pool,
    ):
        # A longer life than that of the reads; used once before the pages are given to them.
        table = pool.reserve(tokens)
        assert table is not None
        cells = table.cells(tokens)
        reader = make_reader(backend)
        puller = KvPuller(reader, deadline_s=DEADLINE_S)
        ticket = sender.ticket(tokens, 1, "off")
        times: dict[str, Times] = {}
        cpu: list[float] = []

        def block_free() -> None:
            nonlocal ticket
            before = time.process_time() + sender.cpu_s()
            started = time.perf_counter()
            puller.pull(ticket, layout, pool.cells, cells, digest="off")
            taken.append(time.perf_counter() - started)
            cpu.append(time.process_time() + sender.cpu_s() - before)
            sender.release(ticket.slot)
            ticket = sender.ticket_as_before(tokens)

        taken: list[float] = []
        for _ in range(repetitions + 1):
            block_free()
        times["block_free"] = Times(taken[1:])
        arrived = digest_cells(pool.cells, cells, layout, "full")
        started = time.perf_counter()
        digest_cells(pool.cells, cells, layout, "full")
        digest_s = time.perf_counter() - started
        if backend == "nixl":
            reads = DirectReads(ticket, pool, cells)
            times["raw"] = _timed(reads.raw, repetitions)
            source = reads.contiguous.view(layout.storage_dtype).reshape(layout.shape(tokens))
            pool.cells[:] = 0
            times["one_call"] = _timed(reads.one_call, repetitions)
            assert digest_cells(pool.cells, cells, layout, "full") == arrived
            times["per_block"] = _timed(reads.per_block, min(repetitions, PER_BLOCK_REPETITIONS))
            reads.close()
        else:
            contiguous = np.zeros(layout.shape(tokens), layout.storage_dtype)

            def raw() -> None:
                nonlocal ticket
                deadline = Deadline(DEADLINE_S, time.monotonic)
                started = time.perf_counter()
                layers = reader.read(ticket, layout, 0, deadline)
                for target, layer in zip(contiguous, layers, strict=True):
                    target[:] = layer
                raw_taken.append(time.perf_counter() - started)
                sender.release(ticket.slot)
                ticket = sender.ticket_as_before(tokens)

            raw_taken: list[float] = []
            for _ in range(repetitions + 1):
                raw()
            times["raw"] = Times(raw_taken[1:])
            source = contiguous
        scatter = Scatter(cells, pool.cells.shape[2])
        times["memcpy_scatter"] = _timed(
            lambda: [
                scatter.copy(layer, target)
                for layer, target in zip(source, pool.cells, strict=True)
            ],
            repetitions,
        )
        assert digest_cells(pool.cells, cells, layout, "full") == arrived
        puller.close()
        pool.free(table)
    return _case(backend, layout_name, layout, tokens, times, digest_s, min(cpu[1:]))


@contextmanager
def _pool(layout: KvLayout, tokens: int) -> Iterator[PagePool]:
    """Pages over which the request lies scattered."""
    pages = -(-tokens // PAGE_TOKENS)
    pool = PagePool(layout, pages + pages // 4, PAGE_TOKENS)
    try:
        yield pool
    finally:
        pool.close()


def _case(
    backend: TransferName,
    layout_name: str,
    layout: KvLayout,
    tokens: int,
    times: dict[str, Times],
    digest_s: float,
    cpu_s: float,
) -> dict[str, Any]:
    ways = ("per_block", "one_call", "block_free", "raw", "memcpy_scatter")
    best = {way: times[way].best_s if way in times else None for way in ways}
    block_free = times["block_free"].best_s
    parts = times["raw"].best_s + times["memcpy_scatter"].best_s
    return {
        "layout": layout_name,
        "tokens": tokens,
        "backend": backend,
        "bytes": tokens * layout.bytes_per_token,
        **{f"{way}_s": best[way] for way in ways},
        "digest_s": digest_s,
        "cpu_s": cpu_s,
        "medians": {f"{way}_s": times[way].median_s if way in times else None for way in ways},
        "block_free_of_one_call": _ratio(block_free, best["one_call"]),
        "block_free_of_per_block": _ratio(block_free, best["per_block"]),
        "block_free_of_raw_and_scatter": block_free / parts,
    }


def _ratio(ours_s: float, theirs_s: float | None) -> float | None:
    return None if theirs_s is None else ours_s / theirs_s


def _show(case: dict[str, Any]) -> str:
    def milliseconds(name: str) -> str:
        value = case[name]
        return "-" if value is None else f"{value * 1e3:.1f}"

    names = ("per_block_s", "one_call_s", "block_free_s", "raw_s", "memcpy_scatter_s")
    numbers = " ".join(f"{milliseconds(name):>9}" for name in (*names, "digest_s", "cpu_s"))
    gigabytes_per_s = case["bytes"] / case["block_free_s"] / 1e9
    return (
        f"{case['layout']:>5} {case['tokens']:>6} {case['backend']:>5} {numbers} "
        f"{gigabytes_per_s:>6.1f} GB/s"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--backends", default=",".join(TRANSFERS))
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--tokens", default=",".join(map(str, TOKENS)))
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args(arguments)
    cases = []
    if not options.json:
        print("milliseconds, best of the repetitions")
        print("model tokens  way    per_block  one_call block_free    raw   scatter    digest  cpu")
    for backend in map(require_transfer, options.backends.split(",")):
        for name in options.layouts.split(","):
            for tokens in map(int, options.tokens.split(",")):
                case = measure(
                    backend, name, LAYOUTS[name], tokens, repetitions=options.repetitions
                )
                cases.append(case)
                if not options.json:
                    print(_show(case), flush=True)
    if options.json:
        print(json.dumps({"cases": cases}))


if __name__ == "__main__":
    main()
