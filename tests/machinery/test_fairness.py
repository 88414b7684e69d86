"""Tenants share a full cluster by turns, and each keeps within its limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from segue_cloud.cluster.forwarding import ANSWER_S
from segue_cloud.cluster.local_link import LocalLink
from segue_cloud.config import TenantConfig
from segue_cloud.gateway.tenants import Tenants
from segue_protocol.errors import InvalidRequest, Overloaded, Unavailable
from segue_protocol.streams import LocalStream
from segue_protocol.wire import private
from tests.harness import Cloud, reference_cloud
from tests.machinery.test_proofs import PROMPT, Answer, start_message
from tests.virtual_clock import run_virtual

STEP_S = 0.01


def _ask(cloud: Cloud, tenant: str, prompt: tuple[int, ...] = PROMPT) -> Answer:
    return Answer(cloud, start_message(8, 8, prompt), tenant=tenant)


async def _settle() -> None:
    """Let everything that is ready take its steps; no time passes."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_one_request_is_served_before_most_of_a_hundred_of_another_tenant() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def watch(tenant: str, answer: Answer) -> None:
            assert len(await answer.done()) == 8
            ended.append(tenant)

        async with reference_cloud(slots=1, step_s=STEP_S) as cloud:
            many = [watch("many", _ask(cloud, "many")) for _ in range(100)]
            running = [asyncio.create_task(each) for each in many]
            await asyncio.sleep(2 * STEP_S)
            running.append(asyncio.create_task(watch("one", _ask(cloud, "one"))))
            await asyncio.gather(*running)
        assert len(ended) == 101
        assert ended.index("one") < 10

    run_virtual(main())


def test_a_tenant_has_so_many_requests_and_no_more() -> None:
    async def main() -> None:
        tenants = Tenants([TenantConfig(name="acme", max_requests=2)])
        async with reference_cloud(tenants=tenants) as cloud:
            allowed = [_ask(cloud, "acme") for _ in range(2)]
            await _settle()
            refused, other = _ask(cloud, "acme"), _ask(cloud, "other")
            assert await refused.done() == []
            assert isinstance(refused.error, Overloaded)
            assert refused.error.reason == "TENANT_REQUESTS"
            assert refused.error.retry_after_s
            for answer in (*allowed, other):
                assert len(await answer.done()) == 8
            assert len(await _ask(cloud, "acme").done()) == 8

    run_virtual(main())


def test_a_tenant_has_so_many_prompt_tokens_before_decode_and_no_more() -> None:
    async def main() -> None:
        limit = 2 * len(PROMPT)
        tenants = Tenants([TenantConfig(name="acme", max_prefill_tokens=limit)])
        async with reference_cloud(tenants=tenants) as cloud:
            decoding = _ask(cloud, "acme")
            await decoding.until(2)  # is in prefill no more
            allowed = [_ask(cloud, "acme") for _ in range(2)]
            await _settle()
            refused = _ask(cloud, "acme")
            assert await refused.done() == []
            assert isinstance(refused.error, Overloaded)
            assert refused.error.reason == "TENANT_PREFILL_TOKENS"
            assert refused.error.retry_after_s
            for answer in (decoding, *allowed):
                assert len(await answer.done()) == 8
            # No waiting makes room for this one: another error.
            never = _ask(cloud, "acme", PROMPT * 3)
            await never.done()
            assert isinstance(never.error, InvalidRequest)
            assert never.error.reason == "TENANT_PREFILL_TOKENS"

    run_virtual(main())


class _Frozen(LocalLink):
    """A worker that takes an offer and says nothing, as a stopped process does."""

    def __init__(self) -> None:
        super().__init__()
        self.offers = 0

    def prefill(self) -> LocalStream[private.PrefillRequest, private.PrefillResponse]:
        self.offers += 1
        return LocalStream(self._silence)

    async def _silence(
        self, requests: AsyncIterator[private.PrefillRequest]
    ) -> AsyncGenerator[private.PrefillResponse, None]:
        await asyncio.Event().wait()
        yield private.PrefillResponse()


def test_a_frozen_worker_costs_one_time_budget_and_not_one_a_request() -> None:
    async def main() -> None:
        async with reference_cloud(prefill_workers=2) as cloud:
            frozen = _Frozen()
            member = cloud.membership.with_role(private.ROLE_PREFILL, "default")[0]
            member.link = frozen
            now_s = asyncio.get_running_loop().time
            started_s = now_s()
            for _ in range(5):
                assert len(await _ask(cloud, "").done()) == 8
            assert ANSWER_S < now_s() - started_s < 2 * ANSWER_S
            assert (frozen.offers, member.suspect) == (1, True)

    run_virtual(main())


def test_the_line_is_as_long_as_the_requests_that_wait_and_empty_afterwards() -> None:

    async def main() -> None:
        async with reference_cloud(slots=1) as cloud:
            answers = [_ask(cloud, "") for _ in range(3)]
            await _settle()
            line = cloud.membership.line("default")
            assert len(line) == 2
            for answer in answers:
                assert len(await answer.done()) == 8
            assert len(line) == 0

    run_virtual(main())


def test_offers_to_full_workers_become_rare_and_a_free_slot_is_found_all_the_same() -> None:
    """Nobody tells the gateway of this slot: it must be asked for."""

    async def main() -> None:
        async with reference_cloud() as cloud:
            slots = cloud.prefill.slots
            held = [slots.acquire(1) for _ in range(slots.slots)]
            answer = _ask(cloud, "")
            await asyncio.sleep(4.0)
            assert 10 < cloud.prefill.counters.rejections < 40
            for slot in held:
                assert slot is not None
                slots.release(slot)
            freed_s = asyncio.get_running_loop().time()
            assert len(await answer.done()) == 8
            assert asyncio.get_running_loop().time() - freed_s < 0.5

    run_virtual(main())


def test_who_waits_is_told_at_once_that_the_last_worker_has_gone() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            slots = cloud.prefill.slots
            held = [slots.acquire(1) for _ in range(slots.slots)]
            answers = [_ask(cloud, "") for _ in range(3)]
            await asyncio.sleep(STEP_S)
            assert len(cloud.membership.line("default")) == 3
            (member,) = cloud.membership.with_role(private.ROLE_PREFILL, "default")
            cloud.membership.remove(member)
            left_s = asyncio.get_running_loop().time()
            for answer in answers:
                await answer.done()
                assert isinstance(answer.error, Unavailable)
                assert answer.error.reason == "NO_WORKER"
            assert asyncio.get_running_loop().time() - left_s < 1.0
            for slot in held:
                assert slot is not None
                slots.release(slot)

    run_virtual(main())
