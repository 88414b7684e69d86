"""Any schedule of drops: the shown ids are those of an answer without one."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue_cloud.gateway.gateway import GatewayLimits
from segue_device import (
    Event,
    Mode,
    Reconnecting,
    Result,
    Resumed,
    Sampling,
    SegueError,
    Token,
)
from segue_device.transports.base import CloudStream, Transport
from segue_protocol.errors import Unavailable
from segue_protocol.wire import public
from tests.harness import Cloud, reference_client, reference_cloud
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"The network of a train in the mountains. ")
SAMPLING = Sampling(temperature=0.9, seed=2, logit_bias={256: -100.0})
LENGTH = 24


class DroppingTransport:
    """Breaks its n-th stream after `drops[n]` responses; streams beyond the list hold."""

    def __init__(self, inner: Transport, drops: list[int]) -> None:
        self._inner = inner
        self._drops = list(drops)
        self.opened = 0

    async def open(self) -> CloudStream:
        left = self._drops[self.opened] if self.opened < len(self._drops) else None
        self.opened += 1
        return _DroppingStream(await self._inner.open(), left)

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        return await self._inner.get_model(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _DroppingStream:
    def __init__(self, inner: CloudStream, left: int | None) -> None:
        self._inner = inner
        self._left = left

    async def send(self, message: public.GenerateRequest) -> None:
        await self._inner.send(message)

    async def receive(self) -> public.GenerateResponse | None:
        if self._left == 0:
            await self._inner.aclose()
            raise Unavailable("the train is in a tunnel")
        if self._left is not None:
            self._left -= 1
        return await self._inner.receive()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _answer(
    cloud: Cloud, transport: Transport, mode: Mode, credit: int | None = None
) -> tuple[list[Event], Result]:
    async with reference_client(transport) as client:
        stream = client.stream(
            prompt_token_ids=PROMPT,
            sampling=SAMPLING,
            max_tokens=LENGTH,
            mode=mode,
            credit_through=credit,
        )
        async with stream as answer:
            events = [event async for event in answer]
    return events, events[-1].result


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), max_size=6),
    st.sampled_from([Mode.SPLIT, Mode.ONLY_IN_CLOUD]),
    st.integers(1, LENGTH),
)
def test_any_schedule_of_drops(drops: list[int], mode: Mode, credit: int) -> None:
    async def main() -> None:
        async with reference_cloud(step_s=0.03) as cloud:
            _, whole = await _answer(cloud, cloud.transport(), Mode.ONLY_ON_DEVICE)
            transport = DroppingTransport(cloud.transport(), drops)
            events, result = await _answer(
                cloud, transport, mode, credit if mode is Mode.SPLIT else None
            )
            assert result.token_ids == whole.token_ids
            shown = [event.index for event in events if isinstance(event, Token)]
            assert shown == list(range(LENGTH)), "no hole, no double, no early end"
            reconnecting = sum(isinstance(event, Reconnecting) for event in events)
            assert sum(isinstance(event, Resumed) for event in events) <= reconnecting
            if mode is Mode.ONLY_IN_CLOUD and drops:
                assert result.usage.cloud_tokens == LENGTH
            await asyncio.sleep(60)
            cloud.check_idle()

    run_virtual(main())


def test_a_restarted_gateway_gets_the_log_as_output_prefix() -> None:
    """The new one knows nothing of the generation: NOT_FOUND, then a fresh start."""

    async def main() -> None:
        async with reference_cloud(step_s=0.05) as old, reference_cloud(step_s=0.05) as new:
            _, whole = await _answer(old, old.transport(), Mode.ONLY_ON_DEVICE)
            transport = DroppingTransport(_Switching(old, new), [6])
            events, result = await _answer(old, transport, Mode.ONLY_IN_CLOUD)
            assert result.token_ids == whole.token_ids
            assert transport.opened == 3, "start, resume (unknown there), start again"
            assert any(isinstance(event, Resumed) for event in events)
            assert result.cloud is not None
            assert 0 < result.cloud.usage.cloud_tokens < LENGTH
            await asyncio.sleep(60)

    run_virtual(main())


class _Switching:
    """The first stream goes to the old gateway, the others to the new one."""

    def __init__(self, old: Cloud, new: Cloud) -> None:
        self._gateways = [old, new]

    async def open(self) -> CloudStream:
        cloud = self._gateways[0]
        if len(self._gateways) > 1:
            self._gateways.pop(0)
        return await cloud.transport().open()

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        return await self._gateways[0].transport().get_model(request)

    async def aclose(self) -> None:
        pass


def test_a_network_that_stays_away_ends_a_cloud_answer_with_what_it_had() -> None:
    async def main() -> None:
        limits = GatewayLimits(unclaimed_s=5.0)
        async with reference_cloud(step_s=0.05, limits=limits) as cloud:
            _, whole = await _answer(cloud, cloud.transport(), Mode.ONLY_ON_DEVICE)
            transport = DroppingTransport(cloud.transport(), [6] + [0] * 1000)
            started_s = asyncio.get_running_loop().time()
            with pytest.raises(SegueError) as failed:
                await _answer(cloud, transport, Mode.ONLY_IN_CLOUD)
            partial = tuple(failed.value.partial)
            assert 0 < len(partial) < LENGTH
            assert partial == whole.token_ids[: len(partial)]
            assert asyncio.get_running_loop().time() - started_s < 15
            await asyncio.sleep(60)

    run_virtual(main())
