"""A refined prompt on the device: what it has computed stays, the rest shrinks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import numpy as np
import pytest

from segue_device import Event, Fallback, Refinement, Sampling
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_protocol.reference import reference_logits
from segue_protocol.wire import public
from tests.harness import reference_device
from tests.machinery.scripted_cloud import scripted, started, tokens
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"Much of what is said here could be left out without any loss. ") * 12
SAMPLING = Sampling(logit_bias={256: -100.0})
LENGTH = 20
KEPT = [(0, 100), (300, 340), (500, 520), (len(PROMPT) - 32, len(PROMPT))]
CLOUD_IDS = [70, 71, 72, 73]


def teacher_forced(
    ids: Sequence[int],
    positions: Sequence[int],
    prompt_tokens: int,
    head: Sequence[int],
    length: int,
) -> list[int]:
    """The greedy answer that begins with `head`, of the reference over a part of a prompt."""
    output = list(head)
    while len(output) < length:
        places = [*positions, *range(prompt_tokens, prompt_tokens + len(output))]
        logits = reference_logits([*ids, *output], places)
        logits[256] -= 100
        output.append(int(np.argmax(logits)))
    return output


def _cloud(kept: list[tuple[int, int]], after_s: float):
    async def script(
        requests: AsyncIterator[public.GenerateRequest],
    ) -> AsyncGenerator[public.GenerateResponse, None]:
        yield started(len(CLOUD_IDS))
        await asyncio.sleep(after_s)
        ranges = [public.Range(start=start, end=end) for start, end in kept]
        yield public.GenerateResponse(refinement=public.Refinement(kept=ranges))
        yield tokens(0, CLOUD_IDS)
        async for request in requests:
            if request.HasField("takeover"):
                return

    return scripted(script)


async def _answer(
    kept: list[tuple[int, int]], after_s: float, chunk: int
) -> tuple[list[Event], list[int]]:
    """The events, and the positions of the engine's cells at the end."""
    engine = ReferenceDeviceEngine(chunk_tokens=chunk)
    async with reference_device(_cloud(kept, after_s), engine=engine) as device:
        stream = device.client.stream(
            prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=LENGTH, credit_through=4
        )
        async with stream as answer:
            seen = [event async for event in answer]
        return seen, [position for position, _ in engine.cells]


@pytest.mark.parametrize("chunk", [7, 64, 256])
@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.6])
def test_the_kept_positions_make_the_rest_of_the_answer(after_s: float, chunk: int) -> None:
    async def main() -> None:
        seen, positions = await _answer(KEPT, after_s, chunk)
        result = seen[-1].result
        cells = [position for position in positions if position < len(PROMPT)]
        kept = [p for start, end in KEPT for p in range(start, end)]
        assert set(kept) <= set(cells)
        assert len(cells) < len(PROMPT), "something was left out"
        (told,) = [each for each in seen if isinstance(each, Refinement)]
        assert told.kept_tokens == len(cells)
        assert list(result.token_ids) == teacher_forced(
            [PROMPT[place] for place in cells], cells, len(PROMPT), CLOUD_IDS, LENGTH
        )
        assert len(positions) >= len(cells) + LENGTH - 1

    run_virtual(main())


def test_a_list_that_comes_after_the_prefill_changes_nothing() -> None:
    async def main() -> None:
        seen, _ = await _answer(KEPT, 3.0, 256)
        assert not [each for each in seen if isinstance(each, Refinement)]

    run_virtual(main())


@pytest.mark.parametrize(
    "kept", [[(5, 4)], [(0, 10), (5, 20)], [(50, 60), (0, 10)], [(0, len(PROMPT) + 1)]]
)
def test_a_list_that_makes_no_sense_ends_the_clouds_part(kept: list[tuple[int, int]]) -> None:
    async def main() -> None:
        seen, positions = await _answer(kept, 0.01, 64)
        result = seen[-1].result
        assert any(isinstance(each, Fallback) for each in seen)
        assert result.usage.device_tokens == LENGTH
        assert positions[: len(PROMPT)] == list(range(len(PROMPT)))

    run_virtual(main())
