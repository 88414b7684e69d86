"""A whole cluster and a device in one event loop, on reference engines.

Nothing here is a stand-in for Segue's own code: gateway, workers, pages,
transfer and device are the real ones; only the links are in-process and the
model is the deterministic reference (exactness level 1).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from segue_cloud.cluster.groups import Groups
from segue_cloud.cluster.local_link import LocalLink
from segue_cloud.cluster.members import Member, Membership
from segue_cloud.engine.reference import ReferenceEngine
from segue_cloud.gateway.gateway import Gateway, GatewayLimits
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.kv.pages import PagePool
from segue_cloud.kv.place import PlacedSlots
from segue_cloud.kv.shared_pool import SharedPagePool, create_pool_memory
from segue_cloud.kv.transfer import KvPuller
from segue_cloud.refine.guards import Guards
from segue_cloud.refine.refiner import Refiner
from segue_cloud.watch.base import Watch
from segue_cloud.worker.aggregated import AggregatedWorker
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import InlineCompute
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.prefill import PrefillWorker
from segue_device import AsyncClient, DeviceModel, DeviceProfile, FinishReason, Sampling
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.engines.runner import InlineRunner
from segue_device.transports.base import Transport
from segue_device.transports.local import LocalTransport
from segue_protocol.reference import STOP_ID, logits_from_state, reference_vocabulary, state_of
from segue_protocol.sampling import sample
from segue_protocol.text import TextStream
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.vocabulary import Vocabulary
from segue_protocol.wire import private

# A slow device beside a fast cloud, as in the paper's setting.
PROFILE = DeviceProfile(
    prefill_base_s=0.0,
    prefill_per_token_s=1 / 800,
    prefill_per_token2_s=0.0,
    decode_s=0.05,
    handover_s=0.02,
)


@dataclass(frozen=True)
class ReferenceAnswer:
    """What every machinery has to show."""

    ids: tuple[int, ...]
    text: str
    reason: FinishReason


def reference_answer(
    prompt: Sequence[int],
    sampling: Sampling,
    max_tokens: int,
    vocabulary: Vocabulary | None = None,
) -> ReferenceAnswer:
    """The reference model's answer, made in a loop and by no machinery at all."""
    stream = TextStream(vocabulary or reference_vocabulary(), sampling.stop)
    state, ids, text = state_of(prompt, range(len(prompt))), list[int](), ""
    reason = FinishReason.LENGTH
    while len(ids) < max_tokens and reason is FinishReason.LENGTH:
        chosen = sample(
            logits_from_state(state), sampling, prompt_ids=prompt, output_ids=ids, index=len(ids)
        )
        state = state_of([chosen.token_id], [len(prompt) + len(ids)], state)
        ids.append(chosen.token_id)
        text += stream.push(chosen.token_id)
        if stream.stopped or chosen.token_id in {STOP_ID, *sampling.stop_token_ids}:
            reason = FinishReason.STOP
    return ReferenceAnswer(tuple(ids), text + stream.flush(), reason)


@dataclass
class Cloud:
    """The cloud side of a test."""

    gateway: Gateway
    membership: Membership
    prefills: list[PrefillWorker]
    decodes: list[DecodeWorker]
    aggregated: list[AggregatedWorker]

    @property
    def prefill(self) -> PrefillWorker:
        return self.prefills[0]

    @property
    def decode(self) -> DecodeWorker:
        return self.decodes[0]

    def transport(self) -> LocalTransport:
        return LocalTransport(self.gateway.generate, self.gateway.get_model)

    def check_idle(self) -> None:
        """Every slot, page, stream and run is back to zero."""
        self.gateway.check_integrity()
        for worker in (*self.prefills, *self.decodes, *self.aggregated):
            worker.check_integrity()
        decodes = [worker.status() for worker in (*self.decodes, *self.aggregated)]
        counts = {
            "slots": sum(worker.slots.used for worker in self.prefills),
            "pages": sum(status.pages_used for status in decodes),
            "running": sum(status.running for status in decodes),
            "parked": sum(status.parked for status in decodes),
            "places": sum(status.slots_used for status in decodes),
            "open streams": sum(member.open_streams for member in self.membership.members),
        }
        assert not any(counts.values()), counts


@asynccontextmanager
async def reference_cloud(
    *,
    slots: int = 2,
    pages: int = 256,
    page_tokens: int = 4,
    max_batch: int = 8,
    max_tokens: int = 512,
    step_s: float = 0.004,
    limits: GatewayLimits | None = None,
    tokenizer: ChatTokenizer | None = None,
    groups: Groups | None = None,
    prefill_workers: int = 1,
    watch: Watch | None = None,
    chunk_tokens: int = 512,
    prefix_cache_bytes: int = 0,
    one_pool: bool = False,
    layerwise: bool = False,
    aggregated_workers: int = 0,
    iteration_tokens: int = 12,
    **gateway_options: Any,
) -> AsyncIterator[Cloud]:
    """A cluster of one decode worker and some prefill workers in every group.

    Workers are listed in the order of their groups; with `one_pool`, those of a
    group share their pages, each as if it were a process of its own. With
    `aggregated_workers` there are so many of these in every group, and no others.
    The cluster is checked to be idle at the end.
    """
    engine = ReferenceEngine()
    refiner = Refiner(engine.layout, Guards.of(reference_vocabulary()))
    groups = groups or Groups()
    membership = Membership(groups.names, watch=watch)
    gateway = Gateway(
        membership, groups=groups, limits=limits, tokenizer=tokenizer, **gateway_options
    )
    cloud = Cloud(gateway, membership, [], [], [])
    pools: list[SlotPool | PagePool] = []
    puller = KvPuller()

    def join(group: str, role: private.Role, link: LocalLink, pool: bytes) -> None:
        membership.add(
            Member(
                role=role,
                group=group,
                pid=len(membership.members),
                incarnation=bytes([len(membership.members)] * 16),
                identity=engine.identity,
                layout=engine.layout,
                max_context_tokens=max_tokens,
                link=link,
                pool=pool,
            )
        )

    def join_aggregated(group: str) -> None:
        page_pool = PagePool(engine.layout, pages, page_tokens)
        pools.append(page_pool)
        compute = InlineCompute(step_s)
        batch = Batch(
            engine, page_pool, compute, max_batch=max_batch, iteration_tokens=iteration_tokens
        )
        worker = AggregatedWorker(
            batch,
            compute,
            prefill_slots=slots,
            max_context_tokens=max_tokens,
            prefix_cache_bytes=prefix_cache_bytes,
            refiner=refiner,
        )
        cloud.aggregated.append(worker)
        link = LocalLink(prefill=worker, decode=worker)
        join(group, private.ROLE_AGGREGATED, link, page_pool.incarnation)

    for group in groups.names:
        for _ in range(aggregated_workers):
            join_aggregated(group)
        if aggregated_workers:
            continue
        seats: list[SharedPagePool] = []  # of each prefill worker, then of the decode worker
        if one_pool:
            memory = create_pool_memory(engine.layout, pages, page_tokens)
            size = (engine.layout, pages, page_tokens)
            seats = [SharedPagePool(memory, *size) for _ in range(prefill_workers + 1)]
        page_pool = seats[-1] if one_pool else PagePool(engine.layout, pages, page_tokens)
        pools.extend([page_pool, *seats[:-1]])
        shared = page_pool.incarnation if one_pool else b""
        for place in range(prefill_workers):
            own = SlotPool(engine.layout, slots, max_tokens)
            pools.append(own)
            prefill = PrefillWorker(
                engine,
                PlacedSlots(seats[place], slots, max_tokens) if one_pool else own,
                InlineCompute(step_s),
                chunk_tokens=chunk_tokens,
                digest="full",
                prefix_cache_bytes=prefix_cache_bytes,
                layerwise=layerwise,
                refiner=refiner,
            )
            cloud.prefills.append(prefill)
            join(group, private.ROLE_PREFILL, LocalLink(prefill=prefill), shared)
        batch = Batch(engine, page_pool, InlineCompute(step_s), max_batch=max_batch)
        decode = DecodeWorker(batch, None if one_pool else puller, InlineCompute(), digest="full")
        cloud.decodes.append(decode)
        join(group, private.ROLE_DECODE, LocalLink(decode=decode), shared)
    loops = [
        asyncio.create_task(worker.batch.run()) for worker in (*cloud.decodes, *cloud.aggregated)
    ]
    try:
        yield cloud
        await gateway.aclose()
        await asyncio.sleep(2 * step_s)  # pages in use by a running step are freed after it
        cloud.check_idle()
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        puller.close()
        for pool in pools:
            pool.close()


def device_cost(profile: DeviceProfile) -> Callable[[int, int], Awaitable[None]]:
    """Let the virtual clock pass as it would on the emulated device."""

    async def cost(n_tokens: int, n_cells: int) -> None:
        if n_tokens == 1:
            await asyncio.sleep(profile.decode_s)
        else:
            await asyncio.sleep(profile.prefill_s(n_cells + n_tokens) - profile.prefill_s(n_cells))

    return cost


def _model(
    engine: ReferenceDeviceEngine, profile: DeviceProfile, vocabulary: Vocabulary | None = None
) -> DeviceModel:
    return DeviceModel(
        InlineRunner(engine, device_cost(profile)),
        profile,
        vocabulary=vocabulary or reference_vocabulary(),
    )


@asynccontextmanager
async def reference_client(
    transport: Transport | None,
    *,
    profile: DeviceProfile = PROFILE,
    vocabulary: Vocabulary | None = None,
    **options: Any,
) -> AsyncIterator[AsyncClient]:
    """A client with the reference engine, slowed to `profile` on the virtual clock."""
    model = _model(ReferenceDeviceEngine(), profile, vocabulary)
    async with AsyncClient(
        **{"cloud": transport, "model": model, "reuse_kv": False, **options}
    ) as client:
        yield client


@dataclass
class Device:
    """A client with its engine laid open."""

    client: AsyncClient
    engine: ReferenceDeviceEngine


@asynccontextmanager
async def reference_device(
    cloud: Cloud | Transport | None,
    *,
    engine: ReferenceDeviceEngine | None = None,
    profile: DeviceProfile = PROFILE,
    **options: Any,
) -> AsyncIterator[Device]:
    """A device with the reference engine, slowed to `profile` on the virtual clock."""
    engine = engine or ReferenceDeviceEngine()
    model = _model(engine, profile)
    transport = cloud.transport() if isinstance(cloud, Cloud) else cloud
    async with AsyncClient(
        **{"cloud": transport, "model": model, "reuse_kv": False, **options}
    ) as client:
        yield Device(client, engine)
