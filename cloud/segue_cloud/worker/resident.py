"""The role `unified` (semi-PD): prefill and decode as two processes of one accelerator.

The resident process loads the weights once and makes the page pool; the two
workers map both, so KV lies where prefill has written it and nothing is moved.
The resident computes nothing and serves nobody: it starts its workers again
when they end, frees what dead ones held, and divides the compute. When it ends,
so do they.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import anyio

from segue_cloud.cluster.supervisor import Supervisor
from segue_cloud.config import WorkerConfig
from segue_cloud.engine.base import CloudEngine
from segue_cloud.kv.memory import MemoryFile
from segue_cloud.kv.shared_pool import SharedPagePool, create_pool_memory
from segue_cloud.security.peers import peers_of_worker
from segue_cloud.watch.logs import event
from segue_cloud.worker.compute import ThreadCompute
from segue_cloud.worker.compute_share import require_share
from segue_cloud.worker.orders import first_of, orders_of_process
from segue_cloud.worker.residence import NO_WEIGHTS, Residence
from segue_cloud.worker.steering import Steering
from segue_protocol.errors import InvalidRequest

log = logging.getLogger(__name__)

UNIFIED = "unified"

# Between two looks for what dead processes have left.
TIDY_S = 1.0
# A process that is stopped between query and update keeps all others from the pool.
LOCK_PATIENCE_S = 5.0


async def run_resident(
    config: WorkerConfig, load_engine: Callable[[WorkerConfig], CloudEngine]
) -> None:
    """Load, start the two workers, keep them until told to stop.

    Raises InvalidRequest for settings that make no sense, what `load_engine`
    raises, and Unavailable (WORKER_REFUSED) when a worker cannot start.
    """
    if config.port:
        raise InvalidRequest(
            f"port is {config.port}, expected none: both processes of a unified worker take free "
            "ones"
        )
    require_share("prefill_share", config.prefill_share)
    require_share("decode_share", config.decode_share)
    peers = peers_of_worker(config)
    orders = orders_of_process()
    async with AsyncExitStack() as held:
        residence, pool = _move_in(config, load_engine, held)
        shared = replace(config, resident=str(residence))
        ended = asyncio.Event()
        prefill, decode = (replace(shared, role=role) for role in ("prefill", "decode"))
        supervisor = Supervisor([prefill, decode], ended=ended.set)
        supervisor.start()
        held.push_async_callback(supervisor.stop)
        event(log, logging.INFO, "unified worker started", group=config.group)
        at_once = asyncio.create_task(orders.at_once.wait())
        leave = asyncio.create_task(orders.leave.wait())
        tidying = asyncio.create_task(tidy(pool.reclaim, supervisor.kill, ended))
        steering = asyncio.create_task(Steering(prefill, decode, supervisor, peers).run())
        draining: asyncio.Task[None] | None = None
        ends: set[asyncio.Future[Any]] = {at_once, leave, tidying, steering, supervisor.failed}
        try:
            if leave in await first_of(ends):
                steering.cancel()
                draining = asyncio.create_task(supervisor.drain())
                await first_of({draining, at_once})
        finally:
            tasks = [each for each in (at_once, leave, tidying, steering, draining) if each]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            event(log, logging.INFO, "unified worker stops", group=config.group)


def _move_in(
    config: WorkerConfig, load_engine: Callable[[WorkerConfig], CloudEngine], held: AsyncExitStack
) -> tuple[Residence, SharedPagePool]:
    """Make what is shared. The engine itself is given up: only its weights stay."""
    incarnation = os.urandom(16)
    engine = load_engine(config)
    memory = create_pool_memory(
        engine.layout, config.pages, config.page_tokens, incarnation=incarnation
    )
    pool = SharedPagePool(memory, engine.layout, config.pages, config.page_tokens)
    held.callback(pool.close)
    weights = _publish(config, engine, incarnation)
    del engine
    gc.collect()  # modules refer to one another, and their memory is large
    if weights is not None:
        held.callback(weights.close)
    residence = Residence(
        pid=os.getpid(),
        incarnation=incarnation,
        pool_descriptor=memory.descriptor,
        weights_descriptor=weights.descriptor if weights is not None else NO_WEIGHTS,
    )
    return residence, pool


def _publish(config: WorkerConfig, engine: CloudEngine, incarnation: bytes) -> MemoryFile | None:
    if config.engine != "torch":
        return None
    from segue_cloud.engine.shared_weights import publish
    from segue_cloud.engine.torch_engine import TorchEngine

    assert isinstance(engine, TorchEngine)
    return publish(engine, incarnation=incarnation)


async def tidy(
    reclaim: Callable[[], int],
    kill: Callable[[], None],
    ended: asyncio.Event,
    *,
    patience_s: float = LOCK_PATIENCE_S,
) -> None:
    """Free what the dead held, for ever; `kill` those who keep the pool locked.

    `ended` is set when a process has ended, but looking is not left to it alone.
    """
    thread = ThreadCompute("segue-tidy")
    reclaiming: asyncio.Task[int] | None = None
    try:
        while True:
            with anyio.move_on_after(TIDY_S):
                await ended.wait()
            ended.clear()
            reclaiming = asyncio.create_task(thread.run(reclaim))
            done, _ = await asyncio.wait([reclaiming], timeout=patience_s)
            if not done:
                event(log, logging.ERROR, "the page pool is locked; its workers start again")
                kill()
            if freed := await reclaiming:
                event(log, logging.INFO, "pages of a dead worker freed", pages=freed)
    finally:
        if reclaiming is not None and not reclaiming.done():
            kill()  # or nobody would ever unlock the pool
            await reclaiming
        thread.close()
