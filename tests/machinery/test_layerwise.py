"""KV that moves layer by layer while the prompt is computed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from segue_cloud.gateway.assignment import Assignment, Scope
from segue_device import Mode, Sampling
from segue_protocol.errors import TransferError
from segue_protocol.wire import private
from tests.harness import Cloud, reference_answer, reference_client, reference_cloud
from tests.virtual_clock import run_virtual

PROMPT = tuple(range(3, 90))
SAMPLING = Sampling(temperature=0.8, seed=5)
REQUEST = Assignment("one", 1, PROMPT, (), SAMPLING, 8, Scope())


async def _started(cloud: Cloud, jobs: asyncio.Queue[private.PrefillRequest]):
    """A prefill that was accepted and has said where its layers will be; then its stream."""

    async def requests() -> AsyncIterator[private.PrefillRequest]:
        while True:
            yield await jobs.get()

    jobs.put_nowait(REQUEST.job(private.Reserved()))
    stream = cloud.prefill.prefill(requests())
    assert (await anext(stream)).HasField("accepted")
    return (await anext(stream)).started, stream


def test_an_answer_is_the_same_by_layers() -> None:
    async def main() -> None:
        async with reference_cloud(layerwise=True) as cloud:
            async with reference_client(cloud.transport()) as client:
                stream = client.stream(
                    prompt_token_ids=PROMPT,
                    sampling=SAMPLING,
                    max_tokens=8,
                    mode=Mode.ONLY_IN_CLOUD,
                )
                async with stream as answer:
                    ids = (await answer.final()).token_ids
            assert tuple(ids) == reference_answer(PROMPT, SAMPLING, 8).ids
            assert cloud.decode.status().transfers_total == 1
            assert not cloud.decode.status().transfer_failures

    run_virtual(main())


@pytest.mark.parametrize("gone", [False, True])
def test_layers_are_copied_before_the_prefill_ends(gone: bool) -> None:
    async def main() -> None:
        async with reference_cloud(layerwise=True) as cloud:
            jobs: asyncio.Queue[private.PrefillRequest] = asyncio.Queue()
            orders: asyncio.Queue[private.DecodeRequest] = asyncio.Queue()

            async def requests() -> AsyncIterator[private.DecodeRequest]:
                while True:
                    yield await orders.get()

            orders.put_nowait(REQUEST.reserve(8))
            decode = cloud.decode.decode(requests())
            assert (await anext(decode)).HasField("reserved")
            started, prefill = await _started(cloud, jobs)
            assert started.ticket.early
            assert not started.ticket.digest
            orders.put_nowait(
                private.DecodeRequest(prefetch=private.Prefetch(ticket=started.ticket))
            )
            first = (await anext(prefill)).prefilled
            assert not first.ticket.early
            if gone:
                # What the early ticket was for is not what the final one says.
                first.ticket.generation += 1
            orders.put_nowait(REQUEST.admit(first, 8))
            if gone:
                with pytest.raises(TransferError, match="what the early ticket announced"):
                    await anext(decode)
            else:
                assert (await anext(decode)).pulled.bytes > 0
            await decode.aclose()
            await prefill.aclose()

    run_virtual(main())


def test_pages_are_free_when_a_request_ends_in_the_middle_of_its_layers() -> None:
    async def main() -> None:
        async with reference_cloud(layerwise=True) as cloud:
            jobs: asyncio.Queue[private.PrefillRequest] = asyncio.Queue()
            orders: asyncio.Queue[private.DecodeRequest] = asyncio.Queue()

            async def requests() -> AsyncIterator[private.DecodeRequest]:
                while True:
                    yield await orders.get()

            orders.put_nowait(REQUEST.reserve(8))
            decode = cloud.decode.decode(requests())
            assert (await anext(decode)).HasField("reserved")
            started, prefill = await _started(cloud, jobs)
            orders.put_nowait(
                private.DecodeRequest(prefetch=private.Prefetch(ticket=started.ticket))
            )
            waiting = asyncio.ensure_future(anext(decode))
            await asyncio.sleep(1)  # virtual: no layer is ever done
            assert cloud.decode.pool.used > 0
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await decode.aclose()
            await prefill.aclose()
            assert cloud.decode.pool.used == 0
            assert cloud.prefill.slots.used == 0

    run_virtual(main())
