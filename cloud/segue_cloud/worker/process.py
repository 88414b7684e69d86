"""The body of a worker process.

It ends on SIGTERM or SIGINT, when the gateway goes, and when its parent's end
of standard input closes: a worker never outlives whoever started it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path

from segue_cloud.config import WorkerConfig
from segue_cloud.engine.loading import load_engine
from segue_cloud.engine.torch_engine import TorchEngine
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.kv.digest import KINDS, DigestKind
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.transfer import KvPuller
from segue_cloud.security.peers import peers_of_worker
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import ThreadCompute
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.prefill import PrefillWorker
from segue_cloud.worker.server import Worker, WorkerServer
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.hosts import host_of

STOP_GRACE_S = 0.5


async def run_worker(config: WorkerConfig) -> None:
    """Load the model, join the gateway, serve until told to stop."""
    if config.role not in ("prefill", "decode"):
        raise InvalidRequest(f"role is {config.role!r}, expected prefill or decode")
    _require_dialable(config)
    peers = peers_of_worker(config)
    stop = _stop_event()
    engine = load_engine(Path(config.model), dtype=config.dtype, threads=config.threads)
    incarnation = os.urandom(16)
    async with AsyncExitStack() as held:
        worker = _build(config, engine, incarnation, held)
        server = WorkerServer(worker, engine, incarnation, peers, group=config.group)
        await server.start(config.host, config.port, config.advertised_host or config.host)
        held.push_async_callback(server.stop, STOP_GRACE_S)
        jobs = [
            asyncio.create_task(stop.wait()),
            asyncio.create_task(server.serve(config.gateway)),
        ]
        if isinstance(worker, DecodeWorker):
            jobs.append(asyncio.create_task(worker.batch.run()))
        done, pending = await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        for job in pending:
            job.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for job in done:
            job.result()


def _build(
    config: WorkerConfig, engine: TorchEngine, incarnation: bytes, held: AsyncExitStack
) -> Worker:
    compute = ThreadCompute("segue-compute")
    held.callback(compute.close)
    context = min(config.max_context_tokens or engine.max_context_tokens, engine.max_context_tokens)
    if config.role == "prefill":
        slots = SlotPool(engine.layout, config.prefill_slots, context, incarnation=incarnation)
        held.callback(slots.close)
        return PrefillWorker(
            engine,
            slots,
            compute,
            chunk_tokens=config.prefill_chunk_tokens,
            digest=_digest_kind(config.kv_digest),
        )
    pool = PagePool(engine.layout, config.pages, config.page_tokens, incarnation=incarnation)
    transfers = ThreadCompute("segue-transfer")
    puller = KvPuller()
    held.callback(pool.close)
    held.callback(puller.close)
    held.callback(transfers.close)
    batch = Batch(engine, pool, compute, max_batch=config.max_batch)
    return DecodeWorker(batch, puller, transfers, digest=_digest_kind(config.kv_digest))


def _require_dialable(config: WorkerConfig) -> None:
    if not host_of(config.gateway) or not config.gateway.rpartition(":")[2].isdecimal():
        raise InvalidRequest(f"gateway is {config.gateway!r}, expected HOST:PORT of a worker port")
    if config.host in ("", "0.0.0.0", "::", "[::]") and not config.advertised_host:
        raise InvalidRequest(
            f"host is {config.host!r}, which nobody can call; give advertised_host, the name or "
            "address under which the gateway reaches this worker"
        )


def _digest_kind(name: str) -> DigestKind:
    for kind in KINDS:
        if kind == name:
            return kind
    raise InvalidRequest(f"kv_digest is {name!r}, expected one of {', '.join(KINDS)}")


def _stop_event() -> asyncio.Event:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def watch_parent() -> None:
        # A pipe closes when its last holder ends, however it ends.
        # (Not through sys.stdin: its lock would be held here at interpreter exit.)
        while os.read(0, 4096):
            pass
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch_parent, name="segue-parent", daemon=True).start()
    return stop


def main(config: WorkerConfig) -> int:
    """Run one worker; the exit status tells the supervisor whether to try again."""
    try:
        asyncio.run(run_worker(config))
    except SegueError as error:
        print(f"segue worker: {error.message}", file=sys.stderr)
        return 0 if error.retryable else 1
    return 0
