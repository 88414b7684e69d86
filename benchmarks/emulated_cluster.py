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
from segue_cloud.kv.place import PlacedSlots
from segue_cloud.kv.transfer import KvPuller
from segue_cloud.profiles.base import CloudProfile
from segue_cloud.refine.guards import Guards
from segue_cloud.refine.refiner import Refiner
from segue_cloud.worker.aggregated import AggregatedWorker
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import InlineCompute
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.reference import reference_vocabulary
from segue_protocol.wire import private


@dataclass(frozen=True)
class Shape:
    """How many instances of what size. A prompt is prefilled in one pass, but in an
    aggregated worker.

    A unified instance is a prefill and a decode worker over one pool; each has
    its share of the accelerator, by which its times are divided.
    """

    prefill_workers: int = 4
    decode_workers: int = 2
    aggregated_workers: int = 0
    unified_workers: int = 0
    unified_prefill_share: float = 0.5  # the rest decodes
    iteration_tokens: int = 512
    prefill_slots: int = 2
    max_batch: int = 256
    pages: int = 40_000
    page_tokens: int = 16
    max_context_tokens: int = 8192


POLL_S = 0.05

# The links by which the gateway reaches prefill workers: as many members as links.
Routing = Callable[[Sequence[PrefillWorker]], Sequence[WorkerLink]]


def one_link_each(workers: Sequence[PrefillWorker]) -> Sequence[WorkerLink]:
    """On-demand forwarding, as Segue does it."""
    return [LocalLink(prefill=worker) for worker in workers]


class Instances:
    """The workers of one cluster; more may join, and each may change its role."""

    def __init__(
        self, profile: CloudProfile, shape: Shape, membership: Membership, held: AsyncExitStack
    ) -> None:
        self._profile, self._shape = profile, shape
        self._membership, self._held = membership, held
        self._workers: list[PrefillWorker | DecodeWorker | AggregatedWorker] = []
        self._loops: list[asyncio.Task[None]] = []

    def prefill(self) -> PrefillWorker:
        """A new prefill worker, no member yet."""
        engine, compute = _engine(self._profile, self._shape)
        tokens = self._shape.max_context_tokens
        slots = SlotPool(engine.layout, self._shape.prefill_slots, tokens)
        self._held.callback(slots.close)
        refiner = Refiner(engine.layout, Guards.of(reference_vocabulary()))
        worker = PrefillWorker(engine, slots, compute, chunk_tokens=tokens, refiner=refiner)
        self._workers.append(worker)
        return worker

    def decode(self) -> DecodeWorker:
        """A new decode worker that runs, no member yet."""
        puller = KvPuller()
        self._held.callback(puller.close)
        batch, _ = self._batch(speed=1.0)
        worker = DecodeWorker(batch, puller, InlineCompute())
        self._workers.append(worker)
        return worker

    def join_aggregated(self) -> None:
        """Add an aggregated worker."""
        batch, compute = self._batch(speed=1.0, iteration_tokens=self._shape.iteration_tokens)
        worker = AggregatedWorker(
            batch,
            compute,
            prefill_slots=self._shape.prefill_slots,
            max_context_tokens=self._shape.max_context_tokens,
        )
        self._workers.append(worker)
        link = LocalLink(prefill=worker, decode=worker)
        self.join(private.ROLE_AGGREGATED, link, batch.pool.incarnation)

    def join_unified(self) -> None:
        """Add two workers that share one accelerator and its pages."""
        share, tokens = self._shape.unified_prefill_share, self._shape.max_context_tokens
        batch, _ = self._batch(speed=1.0 - share)
        engine, compute = _engine(self._profile, self._shape, share)
        slots = PlacedSlots(batch.pool, self._shape.prefill_slots, tokens)
        prefill = PrefillWorker(engine, slots, compute, chunk_tokens=tokens)
        decode = DecodeWorker(batch, None, InlineCompute())
        self._workers += [prefill, decode]
        self.join(private.ROLE_PREFILL, LocalLink(prefill=prefill), batch.pool.incarnation)
        self.join(private.ROLE_DECODE, LocalLink(decode=decode), batch.pool.incarnation)

    def _batch(self, *, speed: float, iteration_tokens: int = 0) -> tuple[Batch, InlineCompute]:
        """A batch that runs, with a pool of its own."""
        engine, compute = _engine(self._profile, self._shape, speed)
        pool = PagePool(engine.layout, self._shape.pages, self._shape.page_tokens)
        self._held.callback(pool.close)
        batch = Batch(
            engine,
            pool,
            compute,
            max_batch=self._shape.max_batch,
            iteration_tokens=iteration_tokens,
        )
        self._loops.append(asyncio.create_task(batch.run()))
        return batch, compute

    def join(self, role: private.Role, link: WorkerLink, pool: bytes = b"") -> None:
        """Make a worker a member; its first heartbeat comes with it."""
        engine = next(
            each.engine if isinstance(each, PrefillWorker) else each.batch.engine
            for each in self._workers
        )
        assert isinstance(engine, EmulatedEngine)
        prefills = role == private.ROLE_PREFILL
        slots = self._shape.prefill_slots if prefills else self._shape.max_batch
        self._membership.add(
            Member(
                role=role,
                pid=len(self._workers),
                incarnation=bytes(16),
                identity=engine.identity,
                layout=engine.layout,
                max_context_tokens=engine.max_context_tokens,
                link=link,
                pool=pool,
                status=private.WorkerStatus(role=role, slots=slots),
            )
        )

    async def switch(self, member: Member, role: private.Role) -> None:
        """Drain a member, and let its instance join again in another role."""
        member.draining = True
        self._membership.notify()
        while True:
            await asyncio.sleep(POLL_S)
            if not member.open_streams:
                break
        self._membership.remove(member)
        if role == private.ROLE_PREFILL:
            self.join(role, LocalLink(prefill=self.prefill()))
        else:
            self.join(role, LocalLink(decode=self.decode()))

    def check_idle(self) -> None:
        """Raise unless every count is back to zero."""
        for worker in self._workers:
            worker.check_integrity()
        status = [worker.status() for worker in self._workers]
        assert not any(each.slots_used + each.pages_used for each in status), status

    async def stop(self) -> None:
        """End the decode loops."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)


@asynccontextmanager
async def emulated_cluster(
    profile: CloudProfile,
    shape: Shape,
    limits: GatewayLimits,
    routing: Routing = one_link_each,
    *,
    membership: Membership | None = None,
) -> AsyncIterator[tuple[Gateway, Instances]]:
    """A gateway and its workers on this event loop, checked for leaks at the end."""
    membership = membership or Membership()
    async with AsyncExitStack() as held:
        instances = Instances(profile, shape, membership, held)
        prefills = [instances.prefill() for _ in range(shape.prefill_workers)]
        for link in routing(prefills):
            instances.join(private.ROLE_PREFILL, link)
        for _ in range(shape.decode_workers):
            instances.join(private.ROLE_DECODE, LocalLink(decode=instances.decode()))
        for _ in range(shape.aggregated_workers):
            instances.join_aggregated()
        for _ in range(shape.unified_workers):
            instances.join_unified()
        gateway = Gateway(membership, limits=limits)
        try:
            yield gateway, instances
            await gateway.aclose()
            await asyncio.sleep(60.0)  # of virtual time: steps that still run come to their end
            gateway.check_integrity()
            instances.check_idle()
        finally:
            await instances.stop()


def _engine(
    profile: CloudProfile, shape: Shape, speed: float = 1.0
) -> tuple[EmulatedEngine, InlineCompute]:
    compute = InlineCompute()
    engine = EmulatedEngine(
        profile,
        speed=speed,
        max_context_tokens=shape.max_context_tokens,
        sleep=compute.owe,
        clock=asyncio.get_running_loop().time,
    )
    return engine, compute
