"""A cloud that is too slow for its budget: the device goes on, or the answer ends with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from segue_device import AsyncClient, Budgets, Event, Fallback, Mode, Sampling
from segue_device.transports.local import LocalTransport
from segue_protocol.errors import DeadlineExceeded
from segue_protocol.wire import public
from tests.harness import reference_client
from tests.machinery.scripted_cloud import scripted, started, tokens
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"How long is too long? ") * 20
SAMPLING = Sampling(logit_bias={256: -100.0})
BUDGETS = Budgets(connect_s=2.0, first_token_s=4.0, inter_token_s=3.0)
LENGTH = 30


def _cloud(stops_after: str) -> LocalTransport:
    """It sends heartbeats for ever, and nothing else from some point on."""

    async def script(
        requests: AsyncIterator[public.GenerateRequest],
    ) -> AsyncGenerator[public.GenerateResponse, None]:
        if stops_after != "nothing":
            yield started(LENGTH)
        if stops_after == "tokens":
            yield tokens(0, [65, 66])
        while True:
            await asyncio.sleep(1)
            yield public.GenerateResponse(heartbeat=public.Heartbeat())

    return scripted(script)


CASES = [
    ("nothing", "CONNECT", 2.0),
    ("started", "FIRST_TOKEN", 4.0),
    ("tokens", "INTER_TOKEN", 3.0),
]


@pytest.mark.parametrize(("stops_after", "name", "after_s"), CASES)
def test_without_a_device_the_answer_ends(stops_after: str, name: str, after_s: float) -> None:
    async def main() -> None:
        async with reference_client(_cloud(stops_after), budgets=BUDGETS) as client:
            begun_s = asyncio.get_running_loop().time()
            with pytest.raises(DeadlineExceeded) as caught:
                await _answer(client, Mode.ONLY_IN_CLOUD)
            assert caught.value.reason == f"{name}_BUDGET"
            assert asyncio.get_running_loop().time() - begun_s == pytest.approx(after_s, abs=0.6)
            assert list(caught.value.partial) == ([65, 66] if stops_after == "tokens" else [])

    run_virtual(main())


@pytest.mark.parametrize(("stops_after", "name", "after_s"), CASES)
def test_with_a_device_in_reserve_it_goes_on(stops_after: str, name: str, after_s: float) -> None:
    async def main() -> None:
        async with reference_client(_cloud(stops_after), budgets=BUDGETS) as client:
            seen = await _answer(client, Mode.PREFER_IN_CLOUD)
            (fallback,) = [each for each in seen if isinstance(each, Fallback)]
            assert name.lower() in fallback.reason
            result = seen[-1].result
            assert len(result.token_ids) == LENGTH
            assert result.usage.cloud_tokens == (2 if stops_after == "tokens" else 0)

    run_virtual(main())


def test_the_whole_answer_has_a_budget_too() -> None:
    async def main() -> None:
        async with reference_client(None) as client:
            with pytest.raises(DeadlineExceeded) as caught:
                await _answer(client, Mode.ONLY_ON_DEVICE, Budgets(total_s=1.2))
            assert caught.value.reason == "TOTAL_BUDGET"
            assert 0 < len(caught.value.partial) < LENGTH

    run_virtual(main())


async def _answer(client: AsyncClient, mode: Mode, budgets: Budgets | None = None) -> list[Event]:
    stream = client.stream(
        prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=LENGTH, mode=mode, budgets=budgets
    )
    async with stream as answer:
        return [event async for event in answer]
