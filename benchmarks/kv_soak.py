"""Many transfers of mixed sizes, some killed, some expired: nothing may grow.

``python -m benchmarks.kv_soak [--transfers 10000] [--json]``, for every backend.
Of the transfers 5 % are killed: the reader is given up in the middle of the
layers, and every so often the sending process itself gets SIGKILL and is
started again; 5 % expire: the slot is released before the pull. What is left
must carry the right bytes. Afterwards pages, slots, quarantine, shared memory
and descriptors of both processes are what they were.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.kv_sender import LAYOUT, RemoteSender, make_reader
from segue_cloud.kv.backends.base import (
    TRANSFERS,
    Deadline,
    Reader,
    TransferName,
    require_transfer,
)
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.transfer import KvPuller
from segue_protocol.errors import TransferError
from segue_protocol.wire import private

MAX_TOKENS = 600
PAGE_TOKENS = 16
# Of all transfers; and of the killed ones, those by SIGKILL to the sender.
KILLED = 0.05
EXPIRED = 0.05
PROCESS_KILLS = 0.02
DEADLINE_S = 5.0
# How a transfer may end, by what was done to it.
REASONS = {
    "good": ("",),
    "given_up": ("GIVEN_UP",),
    "sender_killed": ("KV_PEER_GONE", "KV_DEADLINE"),
    "expired": ("KV_STALE",),
}


class GivenUp(TransferError):
    """The soak's own: the receiver's end of a transfer died."""


class Interrupted:
    """A reader that breaks off after a number of pieces, when told to."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.after: int | None = None

    def read(
        self, ticket: private.KvTicket, layout: KvLayout, first: int, deadline: Deadline
    ) -> Iterator[Cells]:
        for number, piece in enumerate(self._reader.read(ticket, layout, first, deadline)):
            if number == self.after:
                raise GivenUp("given up on purpose", reason="GIVEN_UP")
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def measure(backend: TransferName, transfers: int, *, seed: int = 0) -> dict[str, Any]:
    """Counts, and what was held before and after. Raises AssertionError on wrong bytes."""
    draw = random.Random(seed)
    reader = Interrupted(make_reader(backend))
    puller = KvPuller(reader, deadline_s=DEADLINE_S)
    pool = PagePool(LAYOUT, MAX_TOKENS // PAGE_TOKENS * 2, PAGE_TOKENS)
    counts = dict.fromkeys(REASONS, 0)
    sender = RemoteSender(backend, max_tokens=MAX_TOKENS)
    try:
        before: dict[str, int] | None = None
        for number in range(transfers):
            tokens = draw.randint(1, MAX_TOKENS)
            drawn = draw.random()
            killed = drawn < KILLED
            expired = KILLED <= drawn < KILLED + EXPIRED
            kill_sender = killed and draw.random() < PROCESS_KILLS
            ticket = sender.ticket(tokens, number, "full")
            if expired:
                sender.release(ticket.slot)
            if kill_sender:
                sender.kill()
            reader.after = draw.randrange(LAYOUT.num_layers) if killed else None
            table = pool.reserve(tokens)
            assert table is not None
            fate = "sender_killed" if kill_sender else "given_up" if killed else ""
            fate = fate or ("expired" if expired else "good")
            reason = _outcome(puller, ticket, pool.cells, table.cells(tokens))
            pool.free(table)
            assert reason in REASONS[fate], f"{reason} where it was {fate}"
            counts[fate] += 1
            if kill_sender:
                sender.close()
                sender = RemoteSender(backend, max_tokens=MAX_TOKENS)
                before = None
            elif not expired:
                sender.release(ticket.slot)
            if before is None:  # both ends are warm
                _settle(puller, pool, sender)
                before = _held(reader, pool, sender)
        _settle(puller, pool, sender)
        after = _held(reader, pool, sender)
        assert before is not None
        pool.check_integrity()
    finally:
        sender.close()
        puller.close()
        pool.close()
    return {"backend": backend, "transfers": transfers, **counts, "before": before, "after": after}


def _outcome(
    puller: KvPuller, ticket: private.KvTicket, cells: Cells, numbers: npt.NDArray[np.int64]
) -> str:
    """Why not, or "" when the digest of every byte was right."""
    try:
        puller.pull(ticket, LAYOUT, cells, numbers, digest="full")
    except TransferError as error:
        reason: str = error.reason
        return reason
    return ""


def _settle(puller: KvPuller, pool: PagePool, sender: RemoteSender) -> None:
    """Whole transfers, so that reads given up before have ended and both ends are connected."""
    reader: Any = puller.reader
    reader.after = None
    for _ in range(3):
        ticket = sender.ticket(1, 0, "full")
        puller.pull(ticket, LAYOUT, pool.cells, np.zeros(1, np.int64), digest="full")
        sender.release(ticket.slot)


def _held(reader: Interrupted, pool: PagePool, sender: RemoteSender) -> dict[str, int]:
    return {
        "pages": pool.used,
        "slots": int(sender.ask(used=True)),
        "quarantined_bytes": reader.quarantined_bytes,
        "attachments": reader.attachments,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "sender_descriptors": int(sender.ask(descriptors=True)),
        "memory_files": _memory_files(),
        "shm_segments": len(os.listdir("/dev/shm")),
    }


def _memory_files() -> int:
    with open("/proc/self/maps") as maps:
        return len({line.split()[4] for line in maps if "segue-kv" in line})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--transfers", type=int, default=10_000)
    parser.add_argument("--backends", default=",".join(TRANSFERS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows = []
    for backend in map(require_transfer, options.backends.split(",")):
        rows.append(measure(backend, options.transfers))
        if not options.json:
            print(rows[-1], flush=True)
    if options.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
