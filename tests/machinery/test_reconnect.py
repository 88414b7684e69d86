"""A gateway that was restarted, and a network that stays away."""

from __future__ import annotations

import asyncio

import pytest

from segue_cloud.gateway.gateway import GatewayLimits
from segue_device import (
    AsyncClient,
    DeviceModel,
    Event,
    Mode,
    Result,
    Resumed,
    Sampling,
    SegueError,
)
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.engines.runner import InlineRunner
from segue_device.transports.base import CloudStream, Transport
from segue_protocol.errors import InternalError
from segue_protocol.wire import public
from tests.faulty_transport import REFUSED, Fault, FaultyTransport
from tests.harness import PROFILE, Cloud, reference_answer, reference_client, reference_cloud
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"The network of a train in the mountains. ")
SAMPLING = Sampling(temperature=0.9, seed=2, logit_bias={256: -100.0})
LENGTH = 24


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


def test_a_restarted_gateway_gets_the_log_as_output_prefix() -> None:
    """The new one knows nothing of the generation: NOT_FOUND, then a fresh start."""

    async def main() -> None:
        async with reference_cloud(step_s=0.05) as old, reference_cloud(step_s=0.05) as new:
            _, whole = await _answer(old, old.transport(), Mode.ONLY_ON_DEVICE)
            transport = FaultyTransport(_Switching(old, new), [Fault(responses=6)])
            events, result = await _answer(old, transport, Mode.ONLY_IN_CLOUD)
            assert result.token_ids == whole.token_ids
            assert len(transport.streams) == 3, "start, resume (unknown there), start again"
            assert any(isinstance(event, Resumed) for event in events)
            assert result.cloud is not None
            assert 0 < result.cloud.usage.cloud_tokens < LENGTH
            await asyncio.sleep(60)

    run_virtual(main())


def test_a_restarted_gateway_gets_the_credit_as_it_is_now() -> None:
    """The engine has died, the credit of the beginning is no longer enough: no hang."""

    async def engine_dies(n_tokens: int, n_cells: int) -> None:
        await asyncio.sleep(0.2)
        raise InternalError("the accelerator is gone")

    async def main() -> None:
        async with reference_cloud(step_s=0.05) as old, reference_cloud(step_s=0.05) as new:
            transport = FaultyTransport(_Switching(old, new), [Fault(responses=10)])
            runner = InlineRunner(ReferenceDeviceEngine(), engine_dies)
            client = AsyncClient(cloud=transport, model=DeviceModel(runner, PROFILE))
            async with client:
                stream = client.stream(
                    prompt_token_ids=PROMPT,
                    sampling=SAMPLING,
                    max_tokens=LENGTH,
                    credit_through=8,
                )
                async with stream as answer:
                    result = await answer.final()
            assert result.token_ids == reference_answer(PROMPT, SAMPLING, LENGTH).ids
            firsts = [each.sent[0].WhichOneof("message") for each in transport.streams]
            assert firsts == ["start", "resume", "start"]
            await asyncio.sleep(60)

    run_virtual(asyncio.wait_for(main(), 200))


class _Switching:
    """The first stream goes to the old gateway, the others to the new one."""

    def __init__(self, old: Cloud, new: Cloud) -> None:
        self._gateways = [old, new]

    async def open(self, *, anew: bool = False) -> CloudStream:
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
            transport = FaultyTransport(cloud.transport(), [Fault(responses=6)], afterwards=REFUSED)
            started_s = asyncio.get_running_loop().time()
            with pytest.raises(SegueError) as failed:
                await _answer(cloud, transport, Mode.ONLY_IN_CLOUD)
            partial = tuple(failed.value.partial)
            assert 0 < len(partial) < LENGTH
            assert partial == whole.token_ids[: len(partial)]
            assert asyncio.get_running_loop().time() - started_s < 15
            await asyncio.sleep(60)

    run_virtual(main())
