"""A device that cannot, or shall not, go on: the cloud writes to the end, also after a takeover."""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt
import pytest

from segue_device import (
    AnswerStream,
    DeviceConditions,
    DeviceProfile,
    Event,
    Fallback,
    Mode,
    Privacy,
    Result,
    Resumed,
    Sampling,
    SegueError,
    Source,
    Takeover,
    Token,
    Warning,
)
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.transports.base import CloudStream, Transport
from segue_protocol.errors import InternalError
from segue_protocol.wire import public
from tests.harness import Device, reference_cloud, reference_device
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"A long way through the mountains, told to the end. ") * 4
SAMPLING = Sampling(temperature=0.9, seed=5, logit_bias={256: -100.0})
LENGTH = 60
HOT = DeviceConditions(too_hot=True)


class DyingEngine(ReferenceDeviceEngine):
    """Works until its logits have been asked for `alive_for` times."""

    def __init__(self, alive_for: int) -> None:
        super().__init__()
        self._left = alive_for

    def logits(self) -> npt.NDArray[np.float32]:
        self._left -= 1
        if self._left < 0:
            raise InternalError("out of memory", reason="OUT_OF_MEMORY")
        return super().logits()


class SlowToOpen:
    """A transport whose streams take their time."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def open(self, *, anew: bool = False) -> CloudStream:
        await asyncio.sleep(1.0)
        return await self._inner.open(anew=anew)

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        return await self._inner.get_model(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _open(device: Device, mode: Mode = Mode.SPLIT) -> AnswerStream:
    return device.client.stream(
        prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=LENGTH, mode=mode
    )


async def _read(answer: AnswerStream) -> tuple[list[Event], Result]:
    seen = [event async for event in answer]
    return seen, seen[-1].result


async def _collect(answer: AnswerStream, seen: list[Event]) -> None:
    async for event in answer:
        seen.append(event)


async def _expected() -> tuple[int, ...]:
    async with reference_device(None) as device, _open(device, Mode.ONLY_ON_DEVICE) as answer:
        return tuple((await answer.final()).token_ids)


def _kinds(seen: list[Event]) -> list[str]:
    return [each.type for each in seen if each.type not in ("token", "prefill_progress")]


@pytest.mark.parametrize("alive_for", [0, 1, 7, 30])
def test_an_engine_that_dies_after_the_takeover(alive_for: int) -> None:
    async def main() -> None:
        whole = await _expected()
        async with (
            reference_cloud() as cloud,
            reference_device(cloud, engine=DyingEngine(alive_for)) as device,
        ):
            async with _open(device) as answer:
                seen, result = await _read(answer)
            assert result.token_ids == whole
            assert result.usage.device_tokens == alive_for
            sources = [each.source for each in seen if isinstance(each, Token)]
            cut = result.takeover_index
            assert sources[:cut] == [Source.CLOUD] * cut
            assert sources[cut : cut + alive_for] == [Source.DEVICE] * alive_for
            assert set(sources[cut + alive_for :]) == {Source.CLOUD}
            takeovers = ["takeover"] if alive_for else []  # nothing of it was shown otherwise
            told = ["started", *takeovers, "fallback", "started", "resumed", "done"]
            assert sorted(_kinds(seen)) == sorted(told)

    run_virtual(main())


def test_an_engine_that_dies_before_the_cloud_is_reached() -> None:
    """The takeover that nobody heard of must not reach the generation that comes after it."""

    async def main() -> None:
        whole = await _expected()
        quick = DeviceProfile(0.0, 1e-5, 0.0, 0.01, 0.0)
        async with (
            reference_cloud() as cloud,
            reference_device(
                SlowToOpen(cloud.transport()), engine=DyingEngine(7), profile=quick
            ) as device,
        ):
            async with _open(device) as answer:
                _, result = await _read(answer)
            assert result.token_ids == whole
            assert (result.takeover_index, result.usage.device_tokens) == (0, 7)

    run_virtual(main())


def test_a_dead_engine_without_a_cloud_fails_the_answer() -> None:
    async def main() -> None:
        whole = await _expected()
        async with reference_device(None, engine=DyingEngine(9)) as device:
            async with _open(device) as answer:
                with pytest.raises(InternalError, match="out of memory") as caught:
                    await answer.final()
        assert tuple(caught.value.partial) == whole[:9]

    run_virtual(main())


def test_private_tokens_are_not_handed_back() -> None:
    async def main() -> None:
        async with (
            reference_cloud() as cloud,
            reference_device(
                cloud, engine=DyingEngine(9), privacy=Privacy(upload_history=False)
            ) as device,
        ):
            seen: list[Event] = []
            async with _open(device) as answer:
                with pytest.raises(InternalError, match="out of memory"):
                    await _collect(answer, seen)
            assert sorted(_kinds(seen)) == ["started", "takeover"], "the cloud was asked once"

    run_virtual(main())


@pytest.mark.parametrize("at_token", [0, 3, 20])
def test_a_device_that_becomes_hot_rests(at_token: int) -> None:
    async def main() -> None:
        whole = await _expected()
        async with reference_cloud() as cloud, reference_device(cloud) as device:
            seen: list[Event] = []
            async with _open(device) as answer:
                async for event in answer:
                    seen.append(event)
                    if isinstance(event, Token) and event.index == at_token:
                        device.client.set_conditions(HOT)
                        calls = device.engine.append_calls
            result = seen[-1].result
            assert result.token_ids == whole
            assert device.engine.append_calls <= calls + 1, "what ran when it was told"
            assert seen[-2].source is Source.CLOUD
            assert any(isinstance(each, Fallback) and "too hot" in each.reason for each in seen)

    run_virtual(main())


def test_a_hot_device_goes_on_when_the_cloud_is_lost() -> None:
    async def main() -> None:
        whole = await _expected()
        async with reference_cloud() as cloud, reference_device(cloud) as device:
            seen: list[Event] = []
            async with _open(device) as answer:
                async for event in answer:
                    seen.append(event)
                    if isinstance(event, Token) and event.index == 20:
                        device.client.set_conditions(HOT)
                    if isinstance(event, Resumed):
                        await cloud.gateway.aclose()
            result = seen[-1].result
            assert result.token_ids == whole
            takeovers = [each.index for each in seen if isinstance(each, Takeover)]
            assert len(takeovers) == 2
            assert takeovers[0] < 20 < takeovers[1]

    run_virtual(main())


def test_a_hot_device_alone_goes_on_and_says_so() -> None:
    async def main() -> None:
        whole = await _expected()
        async with reference_device(None) as device:
            seen: list[Event] = []
            async with _open(device) as answer:
                async for event in answer:
                    seen.append(event)
                    if isinstance(event, Token) and event.index == 5:
                        device.client.set_conditions(HOT)
            assert seen[-1].result.token_ids == whole
            assert any(isinstance(each, Warning) and "too hot" in each.message for each in seen)

    run_virtual(main())


def test_a_hot_device_begins_in_the_cloud() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud, reference_device(cloud) as device:
            device.client.set_conditions(DeviceConditions(battery_low=True, memory_low=True))
            async with _open(device) as answer:
                seen, result = await _read(answer)
            assert result.usage.device_tokens == 0
            assert device.engine.append_calls == 0
            (told,) = [each for each in seen if isinstance(each, Fallback)]
            assert told.reason == "the app says that its battery is low and its memory is low"
            device.client.set_conditions(DeviceConditions())
            async with _open(device) as answer:
                assert (await answer.final()).usage.device_tokens > 0

    run_virtual(main())


def test_a_refusal_of_the_handed_back_answer_ends_it_with_what_there_is() -> None:
    async def main() -> None:
        whole = await _expected()
        async with (
            reference_cloud() as cloud,
            reference_device(cloud, engine=DyingEngine(9)) as device,
        ):
            async with _open(device) as answer:
                async for event in answer:
                    if isinstance(event, Takeover):
                        break
                for member in cloud.membership.members:
                    cloud.membership.remove(member)
                with pytest.raises(SegueError) as caught:
                    await answer.final()
            assert tuple(caught.value.partial) == whole[: len(caught.value.partial)]
            assert len(caught.value.partial) > 9

    run_virtual(main())
