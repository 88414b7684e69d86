"""An app that is put to sleep in mid-answer, at any point of it."""

from __future__ import annotations

import asyncio

import pytest

from segue_device import AnswerStream, AsyncClient, Event, Mode, Sampling, Token
from segue_protocol.errors import InvalidRequest
from tests.harness import PROFILE, Device, reference_cloud, reference_device
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"Asleep on the train, awake in another country. ") * 8
SAMPLING = Sampling(temperature=0.9, seed=8, logit_bias={256: -100.0})
LENGTH = 50


def _open(client: AsyncClient, mode: Mode) -> AnswerStream:
    return client.stream(prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=LENGTH, mode=mode)


async def _collect(answer: AnswerStream, seen: list[Event]) -> None:
    seen.extend([event async for event in answer])


async def _sleep_through(
    device: Device, mode: Mode, after_s: float, slept_s: float
) -> tuple[list[Event], int]:
    """The events, and how many there were when the app fell asleep."""
    seen: list[Event] = []

    async def collect(answer: AnswerStream) -> None:
        async for event in answer:
            seen.append(event)

    async with _open(device.client, mode) as answer:
        reading = asyncio.create_task(collect(answer))
        await asyncio.sleep(after_s)
        device.client.suspend()
        device.client.suspend()
        await asyncio.sleep(0.3)  # one engine call that was under way may end
        before, calls = len(seen), device.engine.append_calls
        await asyncio.sleep(slept_s)
        assert len(seen) == before, "nothing is shown to a sleeper"
        assert device.engine.append_calls == calls, "nothing is computed"
        device.client.resume()
        await reading
    return seen, before


# Connecting, in the cloud's prefill, in the device's, while it catches up, after the takeover.
MOMENTS_S = (0.0, 0.002, 0.02, 0.1, 0.3, 0.47, 0.6, 0.9, 1.5, 2.5)


@pytest.mark.parametrize("slept_s", [1.0, 900.0], ids=["short", "beyond the cloud's lease"])
@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.ONLY_IN_CLOUD, Mode.ONLY_ON_DEVICE])
def test_the_answer_goes_on_where_it_stopped(mode: Mode, slept_s: float) -> None:
    async def main() -> None:
        async with (
            reference_device(None) as device,
            _open(device.client, Mode.ONLY_ON_DEVICE) as answer,
        ):
            whole = tuple((await answer.final()).token_ids)
        for after_s in MOMENTS_S:
            async with reference_cloud(step_s=0.02) as cloud, reference_device(cloud) as device:
                seen, _ = await _sleep_through(device, mode, after_s, slept_s)
                assert tuple(each.token_id for each in seen if isinstance(each, Token)) == whole
                result = seen[-1].result
                assert result.token_ids == whole
                await asyncio.sleep(120)  # leases of what was left behind end

    run_virtual(main())


def test_time_asleep_does_not_count() -> None:
    async def main() -> None:
        async with reference_device(None) as device:
            seen, _ = await _sleep_through(device, Mode.ONLY_ON_DEVICE, 0.1, 500.0)
            prefill_s = PROFILE.prefill_s(len(PROMPT))
            assert seen[-1].result.timings.e2e_s < prefill_s + (LENGTH + 5) * PROFILE.decode_s

    run_virtual(main())


def test_a_suspended_client_opens_nothing() -> None:
    async def main() -> None:
        async with reference_device(None) as device:
            device.client.suspend()
            with pytest.raises(InvalidRequest, match="suspended") as caught:
                async with _open(device.client, Mode.ONLY_ON_DEVICE):
                    pass
            assert caught.value.reason == "SUSPENDED"
            device.client.resume()
            async with _open(device.client, Mode.ONLY_ON_DEVICE) as answer:
                await answer.final()

    run_virtual(main())


def test_a_cancel_wakes_a_sleeping_answer() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud, reference_device(cloud) as device:
            async with _open(device.client, Mode.SPLIT) as answer:
                await asyncio.sleep(0.1)
                device.client.suspend()
                answer.cancel()
                assert (await answer.final()).finish_reason.value == "cancelled"
            await asyncio.sleep(120)

    run_virtual(main())
