"""Turns of a conversation: the device prefills only what is new."""

from __future__ import annotations

import pytest

from segue_device import Mode, Result, Sampling
from tests.harness import Device, reference_cloud, reference_device
from tests.virtual_clock import run_virtual

SYSTEM = tuple(b"You are a helpful device. ") * 10
SAMPLING = Sampling(temperature=0.9, seed=6, logit_bias={256: -100.0})


async def _turn(device: Device, prompt: tuple[int, ...], mode: Mode = Mode.SPLIT) -> Result:
    stream = device.client.stream(
        prompt_token_ids=prompt, sampling=SAMPLING, max_tokens=12, mode=mode
    )
    async with stream as answer:
        return await answer.final()


@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.ONLY_ON_DEVICE])
def test_a_later_turn_prefills_only_what_is_new(mode: Mode) -> None:
    async def main() -> None:
        async with reference_cloud() as cloud, reference_device(cloud, reuse_kv=True) as device:
            first = await _turn(device, SYSTEM + tuple(b"First question?"), mode)
            assert first.usage.cached_tokens == 0
            history = SYSTEM + tuple(b"First question?") + tuple(first.token_ids)
            second_prompt = history + tuple(b" Second question?")
            second = await _turn(device, second_prompt, mode)
            # The last token of an answer is not decoded upon, so it is in no cell.
            assert second.usage.cached_tokens in (len(history) - 1, len(history))
            async with reference_device(cloud) as other:
                fresh = await _turn(other, second_prompt, Mode.ONLY_ON_DEVICE)
            assert second.token_ids == fresh.token_ids
            if mode is Mode.SPLIT:
                assert second.usage.cloud_tokens < first.usage.cloud_tokens

    run_virtual(main())


def test_a_turn_rendered_differently_cuts_the_match_there() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud, reference_device(cloud, reuse_kv=True) as device:
            prompt = SYSTEM + tuple(b"What is it?")
            await _turn(device, prompt)
            changed = list(prompt)
            changed[100] ^= 1
            result = await _turn(device, tuple(changed))
            assert result.usage.cached_tokens == 100
            async with reference_device(cloud) as other:
                fresh = await _turn(other, tuple(changed), Mode.ONLY_ON_DEVICE)
            assert result.token_ids == fresh.token_ids

    run_virtual(main())


def test_the_same_prompt_again_still_computes_its_last_token() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud, reference_device(cloud, reuse_kv=True) as device:
            prompt = SYSTEM + tuple(b"Again?")
            results = [await _turn(device, prompt) for _ in range(2)]
            assert results[1].usage.cached_tokens == len(prompt) - 1
            assert results[0].token_ids == results[1].token_ids

    run_virtual(main())
