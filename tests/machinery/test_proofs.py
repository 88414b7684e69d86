"""Proofs against toys: the pages matter, work is batched, reservations hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from segue_cloud.gateway.gateway import GatewayLimits
from segue_cloud.gateway.session import Session
from segue_cloud.gateway.state import RequestState
from segue_device import DeviceProfile, Mode, Pacing, Result, Sampling
from segue_protocol.errors import Overloaded, SegueError
from segue_protocol.reference import reference_identity
from segue_protocol.version import protocol_version
from segue_protocol.wire import private, public
from tests.harness import Cloud, reference_cloud, reference_device
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"What a corrupted page does to an answer. ")
SAMPLING = Sampling(temperature=0.9, seed=1, logit_bias={256: -100.0})


def start_message(
    max_tokens: int, credit: int, prompt: tuple[int, ...] = PROMPT
) -> public.GenerateRequest:
    return public.GenerateRequest(
        start=public.Start(
            request_id="test",
            protocol=protocol_version(),
            identity=reference_identity().to_wire(),
            prompt_token_ids=public.TokenIds(ids=prompt),
            sampling=SAMPLING.to_wire(),
            limits=public.Limits(max_tokens=max_tokens),
            credit=public.Credit(through=credit),
        )
    )


class Answer:
    """A raw stream to the gateway, read in the background."""

    def __init__(self, cloud: Cloud, start: public.GenerateRequest, *, tenant: str = "") -> None:
        self._requests: asyncio.Queue[public.GenerateRequest] = asyncio.Queue()
        self._requests.put_nowait(start)
        self.ids: list[int] = []
        self._grown = asyncio.Event()
        self.announced: list[int] = []
        self.finish: public.Finish | None = None
        self.error: SegueError | None = None
        self._task = asyncio.create_task(self._read(cloud, tenant))

    async def _read(self, cloud: Cloud, tenant: str) -> None:
        async def requests() -> AsyncIterator[public.GenerateRequest]:
            while True:
                yield await self._requests.get()

        try:
            async for response in cloud.gateway.generate(requests(), tenant=tenant):
                self.ids.extend(response.tokens.ids)
                self._grown.set()
                if response.HasField("progress"):
                    self.announced.append(response.progress.state)
                if response.HasField("finish"):
                    self.finish = response.finish
        except SegueError as error:
            self.error = error

    def credit(self, through: int) -> None:
        self._requests.put_nowait(public.GenerateRequest(credit=public.Credit(through=through)))

    async def until(self, length: int) -> None:
        while len(self.ids) < length:
            self._grown.clear()
            await self._grown.wait()

    async def done(self) -> list[int]:
        await self._task
        return self.ids


async def _whole(cloud: Cloud, prompt: tuple[int, ...] = PROMPT, length: int = 24) -> list[int]:
    return await Answer(cloud, start_message(length, length, prompt)).done()


def test_one_corrupted_page_changes_the_answer() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            whole = await _whole(cloud)
            for corrupt in (False, True):
                cells = cloud.decode.pool.cells
                cells[:] = 0  # idle: whatever is there afterwards belongs to the answer
                answer = Answer(cloud, start_message(24, 8))
                await answer.until(8)
                if corrupt:
                    written = np.flatnonzero(cells[0, 0, :, 0, 0])
                    page = written[5] // 4 * 4
                    cells[0, 0, page : page + 4] += 1
                answer.credit(24)
                ids = await answer.done()
                assert ids[:8] == whole[:8]
                assert (ids == whole) is not corrupt

    run_virtual(main())


def test_a_page_corrupted_during_the_transfer_is_caught_and_repaired() -> None:
    """The digest sees it, nothing of it is decoded, a new prefill gives the right answer."""

    async def main() -> None:
        async with reference_cloud() as cloud:
            whole = await _whole(cloud)
            original = cloud.prefill.slots.ticket_of

            def corrupting(slot, digest):  # type: ignore[no-untyped-def]
                ticket = original(slot, digest)
                slot.cells[0, 0, 3] += 1
                cloud.prefill.slots.ticket_of = original  # once
                return ticket

            cloud.prefill.slots.ticket_of = corrupting
            answer = Answer(cloud, start_message(24, 24))
            assert await answer.done() == whole
            assert answer.announced == [public.REQUEST_STATE_RECOMPUTING]
            assert answer.finish is not None
            assert answer.finish.usage.recomputed_tokens == len(PROMPT) + 1

    run_virtual(main())


@pytest.mark.parametrize("when", [RequestState.PREFILLING, RequestState.TRANSFERRING])
def test_a_credit_raised_after_the_reservation_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, when: RequestState
) -> None:
    """It is an extension of the reservation: nothing is written beyond that."""
    enter = Session.enter

    def entering(session: Session, state: RequestState) -> None:
        enter(session, state)
        if state is when:
            asyncio.get_running_loop().create_task(session.raise_credit(24))

    monkeypatch.setattr(Session, "enter", entering)

    async def main() -> None:
        async with reference_cloud() as cloud:
            assert len(await Answer(cloud, start_message(24, 4)).done()) == 24

    run_virtual(main())


def test_nothing_is_recomputed_in_a_healthy_run() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            answer = Answer(cloud, start_message(24, 24))
            await answer.done()
            assert answer.finish is not None
            assert answer.finish.usage.recomputed_tokens == 0
            assert cloud.prefill.counters.prefilled_tokens == len(PROMPT)

    run_virtual(main())


def test_thirty_received_tokens_are_absorbed_in_two_calls_at_most() -> None:
    async def main() -> None:
        profile = DeviceProfile(1.0, 0.001, 0.0, 0.05, 0.0)
        async with reference_cloud() as cloud, reference_device(cloud, profile=profile) as device:
            stream = device.client.stream(
                prompt_token_ids=PROMPT,
                sampling=SAMPLING,
                max_tokens=31,
                credit_through=30,
                pacing=Pacing.off(),
            )
            async with stream as answer:
                result = await answer.final()
        assert (result.usage.cloud_tokens, result.usage.device_tokens) == (30, 1)
        prefill_calls = 1
        assert device.engine.append_calls <= prefill_calls + 2

    run_virtual(main())


def test_a_pool_with_exactly_the_pages_needed_serves_interleaved_requests() -> None:
    """Two requests that grow in turns; every page is used, none is missing."""
    other = tuple(b"Another prompt, of another length than the first. ")

    async def main() -> None:
        # Cells for all tokens but the last, in pages of 4.
        pages = sum(-(-(len(prompt) + 24 - 1) // 4) for prompt in (PROMPT, other))
        async with reference_cloud(pages=pages) as cloud:
            expected = [await _whole(cloud), await _whole(cloud, other)]
            answers = [
                Answer(cloud, start_message(24, 4)),
                Answer(cloud, start_message(24, 4, other)),
            ]
            for through in (4, 8, 12, 16, 20):
                for answer in answers:
                    await answer.until(through)
                    answer.credit(through + 4)
            assert [await answer.done() for answer in answers] == expected
            assert all(not answer.announced for answer in answers), "nothing was evicted"

    run_virtual(main())


def test_parked_pages_make_room_and_the_evicted_answer_goes_on() -> None:
    async def main() -> None:
        pages = -(-(len(PROMPT) + 24 - 1) // 4)
        async with reference_cloud(pages=pages) as cloud:
            whole = await _whole(cloud)
            parked = Answer(cloud, start_message(24, 6))
            await parked.until(6)
            assert await _whole(cloud) == whole, "the newcomer takes the parked pages"
            parked.credit(24)
            assert await parked.done() == whole
            assert parked.announced == [public.REQUEST_STATE_RECOMPUTING]

    run_virtual(main())


def test_running_requests_are_never_evicted_and_waiting_ends_by_the_deadline() -> None:
    async def main() -> None:
        limits = GatewayLimits()
        pages = -(-(len(PROMPT) + 300 - 1) // 4)
        # A step a second: the first request runs for longer than the other may wait.
        async with reference_cloud(pages=pages, step_s=1.0, limits=limits) as cloud:
            first = Answer(cloud, start_message(300, 300))
            await first.until(2)
            second = Answer(cloud, start_message(300, 300))
            await second.done()
            assert isinstance(second.error, Overloaded)
            assert second.error.retry_after_s
            assert len(await first.done()) == 300

    run_virtual(main())


def test_a_full_worker_rejects_at_once_and_another_takes_over() -> None:
    """Slots are never queued for: the third prompt waits at the gateway."""

    async def main() -> None:
        async with reference_cloud(slots=1, step_s=0.1) as cloud:
            answers = [Answer(cloud, start_message(4, 4)) for _ in range(3)]
            results = [await answer.done() for answer in answers]
            assert results[0] == results[1] == results[2]
            assert cloud.prefill.counters.rejections > 0

    run_virtual(main())


def test_a_worker_that_wakes_up_cannot_write() -> None:
    """Tokens of an old epoch are dropped and counted, at any index."""

    async def main() -> None:
        async with reference_cloud() as cloud:
            answer = Answer(cloud, start_message(24, 8))
            await answer.until(8)
            (session,) = cloud.gateway.sessions
            old = session.log.epoch
            session.log.begin_epoch()
            session.append(old, 8, [65, 66], [-1.0, -1.0])
            assert len(session.log) == 8
            assert session.log.dropped == 2
            session.append(session.log.epoch, 9, [65], [-1.0])
            assert session.log.dropped == 3, "no gaps either"
            session.finish(public.FINISH_REASON_CANCELLED)
            await answer.done()

    run_virtual(main())


@pytest.mark.parametrize("prompt_tokens", [200, 1000, 2000])
def test_the_credit_is_near_n_star_and_nothing_stalls(prompt_tokens: int) -> None:
    async def main() -> Result:
        async with reference_cloud(pages=600, max_tokens=2400, step_s=0.005) as cloud:
            async with reference_device(cloud) as device:
                stream = device.client.stream(
                    prompt_token_ids=(PROMPT * 100)[:prompt_tokens],
                    sampling=SAMPLING,
                    max_tokens=150,
                    mode=Mode.SPLIT,
                )
                async with stream as answer:
                    return await answer.final()

    result = run_virtual(main())
    timings = result.timings
    assert timings.max_gap_s <= 0.25
    assert timings.tpot_s is not None
    assert timings.tpot_s <= 1.1 * 0.05
    needed = prompt_tokens / 800 / (0.05 - 1 / 800)
    assert result.usage.cloud_tokens <= needed + 3
    assert result.usage.discarded_tokens == 0
    assert result.takeover_index == result.usage.cloud_tokens


def test_reservations_expire_without_an_admit() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:

            async def requests() -> AsyncIterator[private.DecodeRequest]:
                yield private.DecodeRequest(reserve=private.Reserve(tokens=16))
                await asyncio.Event().wait()

            responses = cloud.decode.decode(requests())
            assert (await anext(responses)).HasField("reserved")
            assert cloud.decode.pool.used == 4
            with pytest.raises(SegueError) as expired:
                await anext(responses)
            assert expired.value.reason == "RESERVATION_EXPIRED"
            assert cloud.decode.pool.used == 0

    run_virtual(main())
