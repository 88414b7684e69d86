"""Groups share nothing: a full one waits for its own workers, an empty one says so."""

from __future__ import annotations

import pytest

from segue_cloud.cluster.groups import Group, Groups
from segue_cloud.gateway.attempt import Budget
from segue_cloud.gateway.gateway import GatewayLimits
from segue_device import Mode, Sampling
from segue_protocol.errors import InvalidRequest, Overloaded, Unavailable
from segue_protocol.wire import private
from tests.harness import Cloud, reference_answer, reference_client, reference_cloud
from tests.machinery.test_proofs import Answer, start_message
from tests.virtual_clock import run_virtual

GROUPS = Groups([Group("chat", labels=("chat",)), Group("code", prompt_prefix=tuple(b"code"))])
SAMPLING = Sampling(temperature=0.9, seed=1)
LIMITS = GatewayLimits(budget=Budget(first_token_s=5.0))
PROMPTS = {"chat": tuple(b"a talk with somebody"), "code": tuple(b"code for somebody")}


async def _ask(cloud: Cloud, group: str) -> None:
    """One whole answer in the cloud, in one group, checked."""
    label = "chat" if group == "chat" else ""
    async with reference_client(cloud.transport(), label=label) as client:
        stream = client.stream(
            prompt_token_ids=PROMPTS[group],
            sampling=SAMPLING,
            max_tokens=20,
            mode=Mode.ONLY_IN_CLOUD,
        )
        async with stream as answer:
            result = await answer.final()
    assert result.token_ids == reference_answer(PROMPTS[group], SAMPLING, 20).ids


def _prefilled(cloud: Cloud) -> list[int]:
    return [worker.counters.prefilled_tokens for worker in cloud.prefills]


def test_a_request_uses_the_workers_of_its_group_only() -> None:
    async def main() -> None:
        async with reference_cloud(groups=GROUPS) as cloud:
            await _ask(cloud, "chat")
            assert _prefilled(cloud) == [len(PROMPTS["chat"]), 0]
            assert [worker.transfers for worker in cloud.decodes] == [1, 0]
            await _ask(cloud, "code")
            assert _prefilled(cloud) == [len(PROMPTS["chat"]), len(PROMPTS["code"])]
            assert [worker.transfers for worker in cloud.decodes] == [1, 1]

    run_virtual(main())


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_full_group_never_uses_the_workers_of_another(role: str) -> None:
    async def main() -> None:
        async with reference_cloud(groups=GROUPS, limits=LIMITS) as cloud:
            if role == "prefill":
                slots = cloud.prefills[0].slots
                held = [slots.acquire(1) for _ in range(slots.slots)]
            else:
                pool = cloud.decodes[0].pool
                table = pool.reserve(pool.pages * pool.page_tokens)
            with pytest.raises(Overloaded) as caught:
                await _ask(cloud, "chat")
            assert caught.value.reason == "TTFT_DEADLINE"
            assert caught.value.retry_after_s
            await _ask(cloud, "code")
            if role == "prefill":
                for slot in held:
                    slots.release(slot)
            else:
                pool.free(table)
            await _ask(cloud, "chat")

    run_virtual(main())


@pytest.mark.parametrize("role", [private.ROLE_PREFILL, private.ROLE_DECODE])
def test_a_group_without_workers_says_so_at_once(role: private.Role) -> None:
    """Nobody there is another answer than everybody busy; pages are not even asked for."""

    async def main() -> None:
        async with reference_cloud(groups=GROUPS, limits=LIMITS) as cloud:
            assert cloud.membership.ready
            (gone,) = cloud.membership.with_role(role, "chat")
            cloud.membership.remove(gone)
            assert not cloud.membership.ready
            start = start_message(20, 20, PROMPTS["chat"])
            start.start.label = "chat"
            answer = Answer(cloud, start)
            assert await answer.done() == []
            assert isinstance(answer.error, Unavailable)
            assert answer.error.reason == "NO_WORKER"
            assert "'chat'" in answer.error.message
            await _ask(cloud, "code")

    run_virtual(main())


def test_a_label_that_nobody_serves_is_refused_by_name() -> None:
    async def main() -> None:
        async with reference_cloud(groups=GROUPS) as cloud:
            async with reference_client(cloud.transport(), label="chat") as client:
                stream = client.stream(
                    prompt_token_ids=PROMPTS["chat"],
                    sampling=SAMPLING,
                    max_tokens=4,
                    mode=Mode.ONLY_IN_CLOUD,
                    label="speech",
                )
                with pytest.raises(InvalidRequest, match="known labels are chat") as caught:
                    async with stream as answer:
                        await answer.final()
            assert caught.value.reason == "UNKNOWN_LABEL"

    run_virtual(main())


def test_a_worker_of_an_unknown_group_is_refused() -> None:
    async def main() -> None:
        async with reference_cloud(groups=GROUPS) as cloud:
            (member,) = cloud.membership.with_role(private.ROLE_PREFILL, "chat")
            member.group = "caht"
            with pytest.raises(InvalidRequest, match=r"'caht'.*chat, code") as caught:
                cloud.membership.add(member)
            assert caught.value.reason == "UNKNOWN_GROUP"
            member.group = "chat"

    run_virtual(main())
