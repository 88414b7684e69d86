"""Prefill and decode over one page pool: nothing is moved, nothing is written twice."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from segue_cloud.cluster.local_link import LocalLink
from segue_cloud.gateway.assignment import Assignment, Scope
from segue_device import Mode, Sampling
from segue_protocol.errors import Overloaded, TransferError
from segue_protocol.wire import private
from tests.harness import reference_answer, reference_cloud, reference_device
from tests.virtual_clock import run_virtual

PROMPTS = [tuple(f"Prompt {place}: tell a story of {place} cats.".encode()) for place in range(6)]


@pytest.mark.parametrize("prefix_cache_bytes", [0, 1 << 20])
def test_answers_are_those_of_one_request_alone_and_nothing_is_moved(
    prefix_cache_bytes: int,
) -> None:
    async def main() -> None:
        async with (
            reference_cloud(
                one_pool=True, chunk_tokens=7, prefix_cache_bytes=prefix_cache_bytes
            ) as cloud,
            reference_device(cloud) as device,
        ):

            async def ask(prompt: tuple[int, ...], sampling: Sampling) -> tuple[int, ...]:
                stream = device.client.stream(
                    prompt_token_ids=prompt,
                    sampling=sampling,
                    max_tokens=24,
                    mode=Mode.ONLY_IN_CLOUD,
                )
                async with stream as answer:
                    return (await answer.final()).token_ids

            for _ in range(2):  # the second time out of the prefix cache, if there is one
                jobs = [
                    (prompt * 3, Sampling(temperature=0.9, seed=seed))
                    for seed, prompt in enumerate(PROMPTS)
                ]
                answers = await asyncio.gather(*(ask(*job) for job in jobs))
                assert answers == [reference_answer(*job, 24).ids for job in jobs]
            assert (cloud.prefill.counters.cached_tokens > 0) == (prefix_cache_bytes > 0)
            status = cloud.decode.status()
            assert (status.transfers_total, status.transfer_bytes_total) == (0, 0)

    run_virtual(main())


def _assignment(prompt: bytes) -> Assignment:
    return Assignment(
        generation_id="g",
        epoch=1,
        prompt_ids=tuple(prompt),
        output_ids=(),
        sampling=Sampling(),
        max_tokens=8,
        scope=Scope(),
    )


async def _first_answer(stream: Any, message: Any) -> Any:
    await stream.send(message)
    return await stream.receive()


def test_pages_are_not_reused_while_a_prefill_still_writes_into_them() -> None:
    """The pool holds one request: the second gets its pages when the first's prefill is over."""
    first, second = _assignment(b"A" * 40), _assignment(b"B" * 40)

    async def main() -> None:
        async with reference_cloud(
            one_pool=True, pages=12, page_tokens=4, chunk_tokens=5, max_tokens=48
        ) as cloud:
            link = LocalLink(prefill=cloud.prefill, decode=cloud.decode)
            prefill = link.prefill()
            async with aclosing(link.decode()) as decode:
                reserved = (await _first_answer(decode, first.reserve(8))).reserved
                await _first_answer(prefill, first.job(reserved))
                writing = asyncio.create_task(prefill.receive())
                await asyncio.sleep(0.01)  # of the virtual clock: in the third of eight chunks
            assert cloud.decode.pool.used == 12, "given up by decode, not by prefill"
            with pytest.raises(Overloaded):
                await _first_answer(link.decode(), second.reserve(8))
            assert (await writing) is not None
            await prefill.aclose()
            assert cloud.decode.pool.used == 0
            async with aclosing(link.decode()) as decode:
                assert await _first_answer(decode, second.reserve(8))

    run_virtual(main())


def test_a_place_is_good_for_its_own_reservation_only() -> None:
    assignment = _assignment(b"Once upon a time")

    async def main() -> None:
        async with reference_cloud(one_pool=True) as cloud:
            link = LocalLink(prefill=cloud.prefill, decode=cloud.decode)
            async with (
                aclosing(link.decode()) as decode,
                aclosing(link.decode()) as other,
                aclosing(link.prefill()) as prefill,
            ):
                reserved = (await _first_answer(decode, assignment.reserve(8))).reserved
                await _first_answer(other, assignment.reserve(8))
                await _first_answer(prefill, assignment.job(reserved))
                answer = await prefill.receive()
                assert answer is not None
                with pytest.raises(TransferError) as refused:
                    await _first_answer(other, assignment.admit(answer.prefilled, 8))
                assert refused.value.reason == "KV_TICKET"
                pulled = await _first_answer(decode, assignment.admit(answer.prefilled, 8))
                assert pulled == private.DecodeResponse(pulled=private.Pulled())

    run_virtual(main())
