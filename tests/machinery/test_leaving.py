"""Ways to leave an answer before its end, and ways to read it without pacing."""

from __future__ import annotations

import asyncio

import pytest

from segue_device import AnswerStream, AsyncClient, Mode, Sampling, Token
from segue_protocol.errors import InvalidRequest
from segue_protocol.wire import public
from tests.harness import reference_client, reference_cloud, reference_device
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"There is always a way out. ") * 8
SAMPLING = Sampling(logit_bias={256: -100.0})

# The device may have taken over a moment before.
ENDS = (public.FINISH_REASON_CANCELLED, public.FINISH_REASON_TAKEN_OVER)


def _open(client: AsyncClient, mode: Mode) -> AnswerStream:
    return client.stream(prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=60, mode=mode)


@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.1, 0.4])
@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.ONLY_IN_CLOUD])
def test_a_cancelled_task_tells_the_cloud(mode: Mode, after_s: float) -> None:
    async def main() -> None:
        async with reference_cloud(step_s=0.05) as cloud:
            async with reference_client(cloud.transport()) as client:

                async def read() -> None:
                    async with _open(client, mode) as answer:
                        async for _ in answer:
                            pass

                reading = asyncio.create_task(read())
                await asyncio.sleep(after_s)
                sessions = list(cloud.gateway.sessions)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                await asyncio.sleep(0.2)  # far below any lease
                for session in sessions:
                    assert session.finish_reason in ENDS
                async with _open(client, mode) as answer:  # nothing is left in use
                    assert len((await answer.final()).token_ids) == 60

    run_virtual(main())


@pytest.mark.parametrize("early", [True, False])
def test_raw_is_not_paced(early: bool) -> None:
    async def main() -> None:
        async with reference_cloud() as cloud, reference_device(cloud) as device:
            stream = _open(device.client, Mode.ONLY_IN_CLOUD)
            raw = stream.raw() if early else None
            async with stream as answer:
                seen = [event async for event in raw or answer.raw()]
            timings = seen[-1].result.timings
            assert len([each for each in seen if isinstance(each, Token)]) == 60
            assert list(timings.shown_s) == list(timings.received_s)

    run_virtual(main())


def test_half_a_character_is_no_prompt() -> None:
    async def main() -> None:
        async with AsyncClient(cloud="127.0.0.1:1") as client:
            for asked in (
                {"prompt": "a\ud83d"},
                {"messages": [{"role": "user", "content": "\ude00"}]},
            ):
                with pytest.raises(InvalidRequest, match="surrogate"):
                    client.stream(**asked, max_tokens=3, mode=Mode.ONLY_IN_CLOUD)

    run_virtual(main())
