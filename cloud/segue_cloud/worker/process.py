"""The body of a worker process.

It drains and ends on SIGTERM, SIGINT or the gateway's word. It ends at once on
a second signal and when its parent's end of standard input closes: a worker
never outlives a `serve` that started it. One that was started by hand waits for
a gateway that has gone, and joins again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from segue_cloud.cluster.members import role_name
from segue_cloud.cluster.supervisor import WORKER_REFUSED
from segue_cloud.config import WorkerConfig
from segue_cloud.engine.base import CloudEngine
from segue_cloud.kv.backends.choice import Transfers, transfers_of
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.kv.digest import KINDS, DigestKind
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.transfer import KvPuller
from segue_cloud.security.peers import Peers, peers_of_worker
from segue_cloud.watch.logs import configure, event
from segue_cloud.worker.aggregated import AggregatedWorker
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import ThreadCompute
from segue_cloud.worker.compute_share import FULL, share_of, take_share
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.in_place import build_in_place
from segue_cloud.worker.orders import Orders, first_of, orders_of_process
from segue_cloud.worker.prefill import PrefillWorker
from segue_cloud.worker.refining import refiner_of
from segue_cloud.worker.residence import Residence
from segue_cloud.worker.resident import UNIFIED, run_resident
from segue_cloud.worker.server import Worker, WorkerServer
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.hosts import host_of
from segue_protocol.wire import private

log = logging.getLogger(__name__)

STOP_GRACE_S = 0.5


async def run_worker(config: WorkerConfig) -> None:
    """Load the model, join the gateway, serve until told to stop.

    A switch of roles keeps the loaded model: the process drains, and joins again
    with new pools under a new incarnation.
    """
    if config.role not in ("prefill", "decode", "aggregated"):
        raise InvalidRequest(
            f"role is {config.role!r}, expected prefill, decode, aggregated or unified"
        )
    require_dialable(config)
    peers = peers_of_worker(config)
    transfers = transfers_of(config, peers)
    if config.transfer_trigger not in ("request", "layer"):
        raise InvalidRequest(
            f"transfer_trigger is {config.transfer_trigger!r}, expected request or layer"
        )
    orders = orders_of_process()
    engine = load_engine_of(config)
    role: str | None = config.role
    while role is not None:
        role = await _serve_as(replace(config, role=role), engine, peers, transfers, orders)


async def _serve_as(
    config: WorkerConfig,
    engine: CloudEngine,
    peers: Peers,
    transfers: Transfers,
    orders: Orders,
) -> str | None:
    """Be a member in one role; returns the role to go on in, None to end."""
    incarnation = os.urandom(16)
    who = {"role": config.role, "group": config.group, "incarnation": incarnation.hex()[:8]}
    event(log, logging.INFO, "worker started", **who)
    async with AsyncExitStack() as held:
        worker = _build(config, engine, incarnation, transfers, held)
        pool = incarnation if isinstance(worker, AggregatedWorker) else b""
        if config.resident:
            pool = Residence.parse(config.resident).incarnation
        server = WorkerServer(
            worker,
            engine,
            incarnation,
            peers,
            group=config.group,
            pool=pool,
            transfers=[transfers.name],
        )
        await server.start(config.host, config.port, config.advertised_host or config.host)
        held.push_async_callback(server.stop, STOP_GRACE_S)
        at_once = asyncio.create_task(orders.at_once.wait())
        jobs = {at_once, asyncio.create_task(server.serve(config.gateway))}
        if not isinstance(worker, PrefillWorker):
            jobs.add(asyncio.create_task(worker.batch.run()))
        told = asyncio.create_task(server.told())
        leaving = {asyncio.create_task(orders.leave.wait()), told}
        try:
            ended = await first_of(jobs | leaving)
            if not ended <= leaving:
                return None
            drain = asyncio.create_task(server.drain(config.drain_grace_s))
            leaving.add(drain)
            drained = drain in await first_of(jobs | {drain})
            stays = drained and told.done() and not orders.leave.is_set()
            return _next_role(told.result()) if stays else None
        finally:
            for task in jobs | leaving:
                task.cancel()
            await asyncio.gather(*jobs, *leaving, return_exceptions=True)
            event(log, logging.INFO, "worker stops", **who)


def _next_role(command: private.JoinResponse) -> str | None:
    if not command.HasField("switch_role"):
        return None
    return role_name(command.switch_role.role)


def load_engine_of(config: WorkerConfig) -> CloudEngine:
    """The engine that is configured; of a resident process, over its weights."""
    if config.engine == "torch" and config.resident:
        return Residence.parse(config.resident).engine(threads=config.threads)
    if config.engine == "torch":
        from segue_cloud.engine.loading import load_engine

        return load_engine(Path(config.model), dtype=config.dtype, threads=config.threads)
    if config.engine == "emulated":
        from segue_cloud.engine.emulated import load_emulated
        from segue_cloud.profiles.published import find_profile

        return load_emulated(
            config.model,
            find_profile(config.profile),
            speed=config.speed * share_of(config) / FULL,
            max_context_tokens=config.max_context_tokens,
        )
    raise InvalidRequest(f"engine is {config.engine!r}, expected torch or emulated")


def _build(
    config: WorkerConfig,
    engine: CloudEngine,
    incarnation: bytes,
    transfers: Transfers,
    held: AsyncExitStack,
) -> Worker:
    context = min(config.max_context_tokens or engine.max_context_tokens, engine.max_context_tokens)
    if config.resident:
        return build_in_place(config, engine, context, held)
    compute = ThreadCompute("segue-compute")
    held.callback(compute.close)
    if config.role == "prefill":
        slots = SlotPool(
            engine.layout,
            config.prefill_slots,
            context,
            incarnation=incarnation,
            sender=transfers.sender,
            shared=transfers.name == "shm",
        )
        held.callback(slots.close)
        return PrefillWorker(
            engine,
            slots,
            compute,
            chunk_tokens=config.prefill_chunk_tokens,
            digest=_digest_kind(config.kv_digest),
            prefix_cache_bytes=config.prefix_cache_bytes,
            layerwise=config.transfer_trigger == "layer",
            refiner=refiner_of(config, engine),
        )
    pool = PagePool(engine.layout, config.pages, config.page_tokens, incarnation=incarnation)
    held.callback(pool.close)
    aggregated = config.role == "aggregated"
    batch = Batch(
        engine,
        pool,
        compute,
        max_batch=config.max_batch,
        iteration_tokens=config.iteration_tokens if aggregated else 0,
    )
    if aggregated:
        return AggregatedWorker(
            batch,
            compute,
            prefill_slots=config.prefill_slots,
            max_context_tokens=context,
            prefix_cache_bytes=config.prefix_cache_bytes,
            refiner=refiner_of(config, engine),
        )
    thread = ThreadCompute("segue-transfer")
    puller = KvPuller(transfers.reader(), deadline_s=config.transfer_deadline_s)
    held.callback(puller.close)
    held.callback(thread.close)
    return DecodeWorker(batch, puller, thread, digest=_digest_kind(config.kv_digest))


def require_dialable(config: WorkerConfig) -> None:
    """Raise InvalidRequest unless worker and gateway can call one another by these settings."""
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


async def _run(config: WorkerConfig) -> None:
    if config.role != UNIFIED:
        await run_worker(config)
        return
    require_dialable(config)
    await run_resident(config, load_engine_of)


def main(config: WorkerConfig) -> int:
    """Run one worker; the exit status tells the supervisor whether to try again."""
    try:
        configure(config.log_format, config.log_level)
        if config.resident:
            take_share(share_of(config))
        asyncio.run(_run(config))
    except SegueError as error:
        print(f"segue worker: {error.message}", file=sys.stderr)
        return os.EX_TEMPFAIL if error.retryable and error.reason != WORKER_REFUSED else 1
    return 0
