"""Many instances in one event loop: emulated accelerators behind the real gateway.

Gateway, forwarding, workers, pages and transfer are Segue's own; links are in
process and the clock is virtual, so a figure costs no time of its own and
comes out the same every time. Whatever is made with this says "emulated".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from segue_cloud.cluster.links import WorkerLink
from segue_cloud.cluster.local_link import LocalLink
from segue_cloud.cluster.members import Member, Membership
from segue_cloud.engine.emulated import EmulatedEngine
from segue_cloud.gateway.gateway import Gateway, GatewayLimits
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.transfer import KvPuller
from segue_cloud.profiles.base import CloudProfile
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import InlineCompute
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.wire import private


@dataclass(frozen=True)
class Shape:
    """How many instances of what size. A prompt is prefilled in one pass."""

    prefill_workers: int = 4
    decode_workers: int = 2
    prefill_slots: int = 2
    max_batch: int = 256
    pages: int = 40_000
    page_tokens: int = 16
    max_context_tokens: int = 8192


# The links by which the gateway reaches prefill workers: as many members as links.
Routing = Callable[[Sequence[PrefillWorker]], Sequence[WorkerLink]]


def one_link_each(workers: Sequence[PrefillWorker]) -> Sequence[WorkerLink]:
    """On-demand forwarding, as Segue does it."""
    return [LocalLink(prefill=worker) for worker in workers]


@asynccontextmanager
async def emulated_cluster(
    profile: CloudProfile,
    shape: Shape,
    limits: GatewayLimits,
    routing: Routing = one_link_each,
) -> AsyncIterator[Gateway]:
    """A gateway and its workers on this event loop, checked for leaks at the end."""
    membership = Membership()
    async with AsyncExitStack() as held:
        prefills = [_prefill(profile, shape, held) for _ in range(shape.prefill_workers)]
        decodes = [_decode(profile, shape, held) for _ in range(shape.decode_workers)]
        for link in routing(prefills):
            _join(membership, private.ROLE_PREFILL, link, prefills[0].engine)
        for worker in decodes:
            _join(membership, private.ROLE_DECODE, LocalLink(decode=worker), worker.batch.engine)
        gateway = Gateway(membership, limits=limits)
        loops = [asyncio.create_task(worker.batch.run()) for worker in decodes]
        try:
            yield gateway
            await gateway.aclose()
            await asyncio.sleep(60.0)  # of virtual time: steps that still run come to their end
            gateway.check_integrity()
            for worker in (*prefills, *decodes):
                worker.check_integrity()
            status = [worker.status() for worker in (*prefills, *decodes)]
            assert not any(each.slots_used + each.pages_used for each in status), status
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)


def _prefill(profile: CloudProfile, shape: Shape, held: AsyncExitStack) -> PrefillWorker:
    engine, compute = _engine(profile, shape)
    slots = SlotPool(engine.layout, shape.prefill_slots, shape.max_context_tokens)
    held.callback(slots.close)
    return PrefillWorker(engine, slots, compute, chunk_tokens=shape.max_context_tokens)


def _decode(profile: CloudProfile, shape: Shape, held: AsyncExitStack) -> DecodeWorker:
    engine, compute = _engine(profile, shape)
    pool = PagePool(engine.layout, shape.pages, shape.page_tokens)
    puller = KvPuller()
    held.callback(pool.close)
    held.callback(puller.close)
    batch = Batch(engine, pool, compute, max_batch=shape.max_batch)
    return DecodeWorker(batch, puller, InlineCompute())


def _engine(profile: CloudProfile, shape: Shape) -> tuple[EmulatedEngine, InlineCompute]:
    compute = InlineCompute()
    engine = EmulatedEngine(
        profile,
        max_context_tokens=shape.max_context_tokens,
        sleep=compute.owe,
        clock=asyncio.get_running_loop().time,
    )
    return engine, compute


def _join(membership: Membership, role: private.Role, link: WorkerLink, engine: object) -> None:
    assert isinstance(engine, EmulatedEngine)
    membership.add(
        Member(
            role=role,
            pid=len(membership.members),
            incarnation=bytes(16),
            identity=engine.identity,
            layout=engine.layout,
            max_context_tokens=engine.max_context_tokens,
            link=link,
        )
    )
