"""Aggregated workers: the same ids as alone, decodes that wait for no prompt, nothing left over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pytest

from segue_cloud.cluster.links import DecodeStream, PrefillStream, WorkerLink
from segue_cloud.cluster.local_link import LocalLink
from segue_cloud.engine.base import Chunk
from segue_cloud.gateway.state import RequestState
from segue_device import Mode, Sampling
from segue_protocol.errors import InvalidRequest, Overloaded
from segue_protocol.streams import LocalStream
from segue_protocol.wire import private
from tests.harness import Cloud, Device, reference_answer, reference_cloud, reference_device
from tests.virtual_clock import run_virtual

NEVER_STOP = {256: -100.0}
JOBS = [
    (
        tuple(f"Prompt {place}: tell a story of {place} cats. ".encode() * (1 + 5 * place % 7)),
        Sampling(temperature=0.9, seed=place, logit_bias=NEVER_STOP if place % 2 else {}),
        5 + 9 * place % 31,
    )
    for place in range(64)
]


async def _ask(
    device: Device, prompt: tuple[int, ...], sampling: Sampling, max_tokens: int, mode: Mode
) -> tuple[int, ...]:
    stream = device.client.stream(
        prompt_token_ids=prompt, sampling=sampling, max_tokens=max_tokens, mode=mode
    )
    async with stream as answer:
        return (await answer.final()).token_ids


@pytest.mark.parametrize(
    "cluster", [{}, {"one_pool": True}, {"aggregated_workers": 2, "max_batch": 8}], ids=str
)
def test_the_ids_of_one_request_alone(cluster: dict[str, Any]) -> None:
    async def main() -> None:
        async with (
            reference_cloud(pages=512, slots=4, **cluster) as cloud,
            reference_device(cloud) as device,
        ):
            answers = await asyncio.gather(
                *(_ask(device, *job, Mode.ONLY_IN_CLOUD) for job in JOBS)
            )
            assert answers == [reference_answer(*job).ids for job in JOBS]
            for worker in cloud.aggregated:
                status = worker.status()
                assert status.transfers_total == 0
                assert status.prefilled_tokens_total > 100, "both workers took part"

    run_virtual(main())


def test_split_answers_are_the_same() -> None:
    async def main() -> None:
        async with reference_cloud(aggregated_workers=1) as cloud, reference_device(cloud) as one:
            for job in JOBS[:8]:
                assert await _ask(one, *job, Mode.SPLIT) == reference_answer(*job).ids
            assert cloud.aggregated[0].batch.decoded_tokens > 0

    run_virtual(main())


def test_every_iteration_has_all_decodes_and_stays_within_its_budget() -> None:
    iterations: list[tuple[int, int]] = []

    def watch(cloud: Cloud) -> None:
        batch = cloud.aggregated[0].batch
        forward = batch.engine.forward

        def watched(cells: Any, chunks: Sequence[Chunk]) -> Any:
            decodes = sum(len(each.token_ids) == 1 < each.total for each in chunks)
            assert decodes >= min(batch.running, batch.max_batch)
            iterations.append((decodes, sum(len(each.token_ids) for each in chunks)))
            return forward(cells, chunks)

        batch.engine.forward = watched  # type: ignore[method-assign]

    async def main() -> None:
        async with (
            reference_cloud(aggregated_workers=1, pages=512, iteration_tokens=20) as cloud,
            reference_device(cloud) as device,
        ):
            watch(cloud)
            await asyncio.gather(*(_ask(device, *job, Mode.ONLY_IN_CLOUD) for job in JOBS[:16]))

    run_virtual(main())
    assert max(tokens for _, tokens in iterations) == 20, "the budget is used, and kept"
    assert any(decodes > 1 and tokens > decodes for decodes, tokens in iterations), "mixed"


@pytest.mark.parametrize(
    "state",
    [
        RequestState.WAITING,
        RequestState.PREFILLING,
        RequestState.DECODING,
        RequestState.PARKED,
    ],
    ids=lambda state: state.name,
)
def test_a_cancel_in_any_state_gives_everything_back(state: RequestState) -> None:
    prompt = JOBS[6][0] * 2
    # The first request takes the whole pool where the second has to wait.
    pages = 256 if state is not RequestState.WAITING else 120

    async def main() -> None:
        async with (
            reference_cloud(aggregated_workers=1, pages=pages, slots=1) as cloud,
            reference_device(cloud) as device,
        ):
            others = asyncio.create_task(
                _ask(device, prompt, Sampling(logit_bias=NEVER_STOP), 40, Mode.ONLY_IN_CLOUD)
            )
            await asyncio.sleep(0.001)
            stream = device.client.stream(
                prompt_token_ids=prompt,
                sampling=Sampling(logit_bias=NEVER_STOP),
                max_tokens=40,
                mode=Mode.SPLIT,  # parks when the credit is used up
                credit_through=8,
            )
            async with stream as answer:
                reading = asyncio.create_task(_drain(answer))
                while state not in [session.state for session in list(cloud.gateway.sessions)[1:]]:
                    await asyncio.sleep(0.001)
                    assert not reading.done(), "the state was never entered"
                answer.cancel()
                await reading
            expected = reference_answer(prompt, Sampling(logit_bias=NEVER_STOP), 40).ids
            assert await others == expected, "nobody else notices"
            await asyncio.sleep(60)
            cloud.check_idle()

    run_virtual(main())


async def _drain(answer: Any) -> None:
    async for _ in answer:
        pass


def test_a_cancelled_prompt_takes_no_more_of_the_next_iterations() -> None:
    async def main() -> None:
        async with reference_cloud(aggregated_workers=1, iteration_tokens=12) as cloud:
            batch = cloud.aggregated[0].batch
            table = batch.pool.reserve(200)
            assert table is not None
            prefill = asyncio.create_task(batch.prefill(list(range(200)), 0, table))
            await asyncio.sleep(0.010)  # of the virtual clock: in the third iteration
            prefill.cancel()
            await asyncio.gather(prefill, return_exceptions=True)
            batch.pool.free(table)
            assert batch.pool.used == 50, "the iteration that runs still writes"
            await asyncio.sleep(0.010)
            assert batch.pool.used == 0
            assert batch.prefilled_tokens == 36
            with pytest.raises(InvalidRequest, match="token id 999"):
                await batch.prefill([1, 999], 0, table)

    run_virtual(main())


def test_an_evicted_answer_goes_on_at_the_other_worker() -> None:
    prompt, sampling, _ = JOBS[3]

    async def main() -> None:
        async with (
            reference_cloud(aggregated_workers=2) as cloud,
            reference_device(cloud) as device,
        ):
            stream = device.client.stream(
                prompt_token_ids=prompt,
                sampling=sampling,
                max_tokens=30,
                mode=Mode.ONLY_IN_CLOUD,
            )
            async with stream as answer:
                await asyncio.sleep(0.080)  # of the virtual clock: in mid-answer
                (used,) = [each for each in cloud.aggregated if each.batch.running]
                used.batch.evict_all()
                result = await answer.final()
            assert all(worker.batch.prefilled_tokens for worker in cloud.aggregated)
            assert result.token_ids == reference_answer(prompt, sampling, 30).ids

    run_virtual(main())


def test_an_aggregated_worker_is_a_member_for_both_roles_and_its_own_partner() -> None:
    async def main() -> None:
        async with reference_cloud(aggregated_workers=2) as cloud:
            members, membership = list(cloud.membership.members), cloud.membership
            for role in (private.ROLE_PREFILL, private.ROLE_DECODE):
                assert membership.with_role(role, "default") == members
            assert membership.absent_role("default") is None
            assert [membership.partners(each) for each in members] == [[each] for each in members]
            assert not members[0].can_feed(members[1])

    run_virtual(main())


class _LeavesOnceReserved(LocalLink):
    """A worker that begins to drain between the reservation and the prefill."""

    def __init__(self, cloud: Cloud, link: WorkerLink) -> None:
        super().__init__()
        self._cloud = cloud
        self._link = link
        self.offers = 0

    def decode(self) -> DecodeStream:
        return self._link.decode()

    def prefill(self) -> PrefillStream:
        self.offers += 1
        self._cloud.membership.members[0].draining = True
        self._cloud.membership.notify()
        return LocalStream(self._refuse)

    async def _refuse(
        self, requests: AsyncIterator[private.PrefillRequest]
    ) -> AsyncGenerator[private.PrefillResponse, None]:
        raise Overloaded("this worker drains", reason="DRAINING")
        yield private.PrefillResponse()


def test_a_reservation_that_nobody_can_feed_is_given_up_for_another() -> None:
    """It would hold up everybody behind it until its deadline."""

    async def main() -> None:
        async with reference_cloud(aggregated_workers=2) as cloud:
            member = cloud.membership.members[0]
            member.link = leaving = _LeavesOnceReserved(cloud, member.link)
            async with reference_device(cloud) as device:
                started_s = asyncio.get_running_loop().time()
                answers = await asyncio.gather(
                    *(_ask(device, *job, Mode.ONLY_IN_CLOUD) for job in JOBS[:6])
                )
                assert answers == [reference_answer(*job).ids for job in JOBS[:6]]
                assert asyncio.get_running_loop().time() - started_s < 10.0
            assert leaving.offers == 1
            sessions = cloud.gateway.sessions
            assert not any(session.measured.recomputed_tokens for session in sessions)

    run_virtual(main())
