"""SIGKILL of a worker in mid-answer: a takeover, a recovery or a typed error; no leak."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from unittest.mock import ANY

import pytest

from demos.cluster import Cluster, running_cluster
from segue_device import AsyncClient, Mode, Result, Sampling, Started, Token
from segue_protocol.wire import private, public
from tests.processes import TINY, connected, is_idle, pid_of, stubs, wait_for

PROMPT = "A long way to go, and a long story to tell on the way. " * 30
SAMPLING = Sampling(temperature=0.7, seed=11, logit_bias={2: -100.0})
MAX_TOKENS = 48
LONG_PROMPT = PROMPT * 6  # the prefill worker is busy with it for a while


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(TINY, "--first-token-s", "40", "--unclaimed-s", "1") as running:
        yield running


async def _whole(client: AsyncClient, prompt: str = PROMPT) -> Result:
    stream = client.stream(
        prompt=prompt, sampling=SAMPLING, max_tokens=MAX_TOKENS, mode=Mode.ONLY_ON_DEVICE
    )
    async with stream as answer:
        return await answer.final()


def test_decode_worker_killed_while_it_decodes_a_split_answer(cluster: Cluster) -> None:
    async def main() -> None:
        decoder = pid_of(await wait_for(cluster, is_idle), private.ROLE_DECODE)
        async with connected(cluster) as client:
            whole = await _whole(client)
            stream = client.stream(prompt=PROMPT, sampling=SAMPLING, max_tokens=MAX_TOKENS)
            async with stream as answer:
                async for event in answer:
                    if isinstance(event, Token) and event.index == 0:
                        os.kill(decoder, signal.SIGKILL)
                        break
                split = await answer.final()
            assert split.token_ids == whole.token_ids
            assert split.takeover_index is not None
            assert split.usage.device_tokens > 0
        after = await wait_for(cluster, is_idle)
        assert pid_of(after, private.ROLE_DECODE) != decoder, "a new one was started"

    asyncio.run(main())


def test_decode_worker_killed_while_it_decodes_a_cloud_answer(cluster: Cluster) -> None:
    """The gateway prefills prompt + log again at the replacement; no token changes."""

    async def main() -> None:
        decoder = pid_of(await wait_for(cluster, is_idle), private.ROLE_DECODE)
        async with connected(cluster) as client:
            whole = await _whole(client)
            stream = client.stream(
                prompt=PROMPT, sampling=SAMPLING, max_tokens=MAX_TOKENS, mode=Mode.ONLY_IN_CLOUD
            )
            async with stream as answer:
                async for event in answer:
                    if isinstance(event, Token) and event.index == 3:
                        os.kill(decoder, signal.SIGSTOP)  # it cannot finish meanwhile
                        os.kill(decoder, signal.SIGKILL)
                        break
                result = await answer.final()
            assert result.token_ids == whole.token_ids
        await wait_for(cluster, is_idle)

    asyncio.run(main())


@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.ONLY_IN_CLOUD], ids=lambda mode: mode.value)
def test_prefill_worker_killed_while_it_prefills(cluster: Cluster, mode: Mode) -> None:
    """Split: the device goes on alone or with the replacement. Cloud: the replacement does it."""

    async def main() -> None:
        prefiller = pid_of(await wait_for(cluster, is_idle), private.ROLE_PREFILL)
        async with connected(cluster) as client:
            whole = await _whole(client, LONG_PROMPT)
            stream = client.stream(
                prompt=LONG_PROMPT, sampling=SAMPLING, max_tokens=MAX_TOKENS, mode=mode
            )
            async with stream as answer:
                async for event in answer:
                    if isinstance(event, Started):
                        await _prefilling(cluster, event)
                        os.kill(prefiller, signal.SIGKILL)
                        break
                result = await answer.final()
            assert result.token_ids == whole.token_ids
            assert result.usage.device_tokens == (0 if mode is Mode.ONLY_IN_CLOUD else ANY)
        await wait_for(cluster, is_idle)

    asyncio.run(main())


async def _prefilling(cluster: Cluster, started: Started) -> None:
    """Wait until a worker has accepted the prompt."""
    request = public.GetGenerationRequest(
        generation_id=started.generation_id, resume_token=started.resume_token
    )
    async with stubs(cluster) as (service, _):
        while (await service.GetGeneration(request)).state == public.REQUEST_STATE_WAITING:
            pass


def test_frozen_prefill_worker(cluster: Cluster) -> None:
    """It holds the offer without an answer; the device does not notice."""

    async def main() -> None:
        prefiller = pid_of(await wait_for(cluster, is_idle), private.ROLE_PREFILL)
        async with connected(cluster) as client:
            whole = await _whole(client)
            os.kill(prefiller, signal.SIGSTOP)
            try:
                stream = client.stream(prompt=PROMPT, sampling=SAMPLING, max_tokens=MAX_TOKENS)
                async with stream as answer:
                    split = await answer.final()
            finally:
                os.kill(prefiller, signal.SIGCONT)
            assert split.token_ids == whole.token_ids
            assert split.usage.device_tokens == MAX_TOKENS
        await wait_for(cluster, is_idle)

    asyncio.run(main())
