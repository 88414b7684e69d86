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
from segue_cloud.refine.guards import Guards
from segue_cloud.refine.refiner import Refiner
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import InlineCompute
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.reference import reference_vocabulary
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
        self._workers: list[PrefillWorker | DecodeWorker] = []
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
        engine, compute = _engine(self._profile, self._shape)
        pool = PagePool(engine.layout, self._shape.pages, self._shape.page_tokens)
        puller = KvPuller()
        self._held.callback(pool.close)
        self._held.callback(puller.close)
        batch = Batch(engine, pool, compute, max_batch=self._shape.max_batch)
        self._loops.append(asyncio.create_task(batch.run()))
        worker = DecodeWorker(batch, puller, InlineCompute())
        self._workers.append(worker)
        return worker

    def join(self, role: private.Role, link: WorkerLink) -> None:
        """Make a worker a member; its first heartbeat comes with it."""
        engine = next(
            each.engine if isinstance(each, PrefillWorker) else each.batch.engine
            for each in self._workers
        )
        assert isinstance(engine, EmulatedEngine)
        slots = self._shape.max_batch if role == private.ROLE_DECODE else self._shape.prefill_slots
        self._membership.add(
            Member(
                role=role,
                pid=len(self._workers),
                incarnation=bytes(16),
                identity=engine.identity,
                layout=engine.layout,
                max_context_tokens=engine.max_context_tokens,
                link=link,
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
        gateway = Gateway(membership, limits=limits)
        try:
            yield gateway, instances
            await gateway.aclose()
            await asyncio.sleep(60.0)  # of virtual time: steps that still run come to their end
            gateway.check_integrity()
            instances.check_idle()
        finally:
            await instances.stop()


def _engine(profile: CloudProfile, shape: Shape) -> tuple[EmulatedEngine, InlineCompute]:
    compute = InlineCompute()
    engine = EmulatedEngine(
        profile,
        max_context_tokens=shape.max_context_tokens,
        sleep=compute.owe,
        clock=asyncio.get_running_loop().time,
    )
    return engine, compute
