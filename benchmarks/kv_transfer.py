"""Moving the KV of one prompt between two processes: per block, in one call, block-free.

``python -m benchmarks.kv_transfer [--json] [--backends nixl,shm,tcp]``. A child
process holds a prompt's KV as a prefill worker does, this one takes it as a
decode worker does. Everything is real but the model: memory, processes, NIXL
over UCX (within one host: one copy by the kernel), TCP over loopback.

============== ============================================================
per_block      one read a page, layer and plane, straight into the pages
one_call       the same reads, posted together
block_free     contiguous reads and a scatter, as the decode worker does it
raw            one contiguous read of everything, nothing scattered (shm, tcp:
               piece by piece, as these read)
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
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.kv_sender import RemoteSender, make_reader
from segue_cloud.kv.backends.base import TRANSFERS, Deadline, TransferName, require_transfer
from segue_cloud.kv.backends.nixl_agent import LOOPBACK, NixlAgent
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
WAYS = ("per_block", "one_call", "block_free", "raw", "memcpy_scatter")
# One post a block is slow, and steady.
PER_BLOCK_REPETITIONS = 3

_Runs = list[tuple[int, int, int]]


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class DirectReads:
    """NIXL reads without the pages' bookkeeping: what block-free is compared with."""

    def __init__(
        self,
        ticket: private.KvTicket,
        pool: PagePool,
        cells: npt.NDArray[np.int64],
        contiguous: npt.NDArray[Any],
    ) -> None:
        layout, tokens = pool.layout, ticket.token_count
        total = tokens * layout.bytes_per_token
        self._agent = NixlAgent("segue-benchmark", LOOPBACK)
        self._registrations = [
            self._agent.register(pool.cells.ctypes.data, pool.cells.nbytes),
            self._agent.register(contiguous.ctypes.data, total),
        ]
        self._peer = self._agent.add_peer(ticket.nixl.metadata)
        there = ticket.nixl.data_address + ticket.layers[0].offset_bytes
        self._whole: _Runs = [(there, int(contiguous.ctypes.data), total)]
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
        table = pool.reserve(tokens)
        assert table is not None
        moved = Moved(backend, pool, table.cells(tokens), sender)
        ways = moved.ways()
        taken: dict[str, list[float]] = {way: [] for way in ways}
        # In turns, so that whatever else the machine does meets all alike; the
        # first round touches memory and connects.
        for turn in range(repetitions + 1):
            for way, run in ways.items():
                if way == "per_block" and turn > PER_BLOCK_REPETITIONS:
                    continue
                seconds = run()
                if turn:
                    taken[way].append(seconds)
                moved.require_arrived(way)
        digest_s = _seconds(moved.digest)
        cpu_s = min(moved.cpu[1:])
        moved.close()
        pool.free(table)
    return _case(backend, layout_name, layout, tokens, taken, digest_s, cpu_s)


class Moved:
    """One prompt, and every way to bring it into pages."""

    def __init__(
        self,
        backend: TransferName,
        pool: PagePool,
        cells: npt.NDArray[np.int64],
        sender: RemoteSender,
    ) -> None:
        self.cpu: list[float] = []
        self._known: npt.NDArray[Any] | None = None
        self._pool = pool
        self._cells = cells
        self._sender = sender
        self._reader = make_reader(backend)
        self._puller = KvPuller(self._reader, deadline_s=DEADLINE_S)
        self._scatter = Scatter(cells, pool.cells.shape[2])
        self._ticket = sender.ticket(len(cells), 1, "full")
        self._digest = self._ticket.digest
        shape = pool.layout.shape(len(cells))
        self._contiguous = np.zeros(shape, pool.layout.storage_dtype)
        self._direct = (
            DirectReads(self._ticket, pool, cells, self._contiguous) if backend == "nixl" else None
        )

    def ways(self) -> dict[str, Callable[[], float]]:
        """Each takes the seconds of one transfer."""
        ways: dict[str, Callable[[], float]] = {"block_free": self._block_free}
        if self._direct is None:
            ways["raw"] = self._raw
        else:
            direct = self._direct
            ways["raw"] = lambda: _seconds(direct.raw)
            ways["one_call"] = lambda: _seconds(direct.one_call)
            ways["per_block"] = lambda: _seconds(direct.per_block)
        # After `raw`, from what that has read.
        ways["memcpy_scatter"] = lambda: _seconds(self._memcpy_scatter)
        return ways

    def digest(self) -> bytes:
        return digest_cells(self._pool.cells, self._cells, self._pool.layout, "full")

    def require_arrived(self, way: str) -> None:
        """Raise AssertionError unless this way has filled the pages: every byte of the
        first, tokens of every few pages of the others."""
        if way == "raw":
            return
        tokens = self._cells[:: max(1, len(self._cells) // 64)]
        if self._known is None:
            assert self.digest() == self._digest, way
            self._known = self._pool.cells[:, :, tokens]
        assert (self._pool.cells[:, :, tokens] == self._known).all(), way
        self._pool.cells[:, :, tokens] = 0

    def close(self) -> None:
        if self._direct is not None:
            self._direct.close()
        self._puller.close()

    def _block_free(self) -> float:
        before = time.process_time() + self._sender.cpu_s()
        layout, pool = self._pool.layout, self._pool
        seconds = _seconds(
            lambda: self._puller.pull(self._ticket, layout, pool.cells, self._cells, digest="off")
        )
        self.cpu.append(time.process_time() + self._sender.cpu_s() - before)
        self._offer_again()
        return seconds

    def _raw(self) -> float:
        def read() -> None:
            deadline = Deadline(DEADLINE_S, time.monotonic)
            rows, done = self._contiguous.reshape(-1, *self._contiguous.shape[-2:]), 0
            for piece in self._reader.read(self._ticket, self._pool.layout, 0, deadline):
                rows[done : done + len(piece)] = piece
                done += len(piece)

        seconds = _seconds(read)
        self._offer_again()
        return seconds

    def _memcpy_scatter(self) -> None:
        for layer, target in zip(self._contiguous, self._pool.cells, strict=True):
            for plane, pool in zip(layer, target, strict=True):
                self._scatter.copy(plane, 0, pool)

    def _offer_again(self) -> None:
        self._sender.release(self._ticket.slot)
        self._ticket = self._sender.ticket_as_before(len(self._cells))


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
    taken: dict[str, list[float]],
    digest_s: float,
    cpu_s: float,
) -> dict[str, Any]:
    best = {way: min(taken[way]) if way in taken else None for way in WAYS}
    median = {way: statistics.median(taken[way]) if way in taken else None for way in WAYS}
    block_free = min(taken["block_free"])
    parts = min(taken["raw"]) + min(taken["memcpy_scatter"])
    return {
        "layout": layout_name,
        "tokens": tokens,
        "backend": backend,
        "bytes": tokens * layout.bytes_per_token,
        **{f"{way}_s": best[way] for way in WAYS},
        "digest_s": digest_s,
        "cpu_s": cpu_s,
        "medians": {f"{way}_s": median[way] for way in WAYS},
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

    names = [f"{way}_s" for way in WAYS] + ["digest_s", "cpu_s"]
    numbers = " ".join(f"{milliseconds(name):>9}" for name in names)
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
