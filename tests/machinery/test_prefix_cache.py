"""Beginnings are prefilled once: same answers, less work, and no tenant sees another's."""

from __future__ import annotations

from segue_cloud.cluster.groups import Group, Groups
from segue_protocol.wire import private
from tests.harness import Cloud, reference_cloud
from tests.machinery.test_proofs import Answer, start_message
from tests.virtual_clock import run_virtual

LISTED = tuple(b"You are a helpful assistant who answers in few words and says no more. ")
BEGINNING = tuple(b"A long way to go, and a long story to tell on the way. " * 4)[:200]
PROMPTS = [(*BEGINNING, *tail) for tail in (b"First.", b"Second question.", b"And a third one?")]
CACHE_BYTES = 2**16
COMMON = 128  # the last of 64, 128, 256, ... within the common beginning


async def _ask(cloud: Cloud, prompt: tuple[int, ...], tenant: str = "") -> tuple[list[int], int]:
    """The answer's ids, and how many tokens of its prompt were cached."""
    answer = Answer(cloud, start_message(16, 16, prompt), tenant=tenant)
    ids = await answer.done()
    assert answer.finish is not None, answer.error
    return ids, answer.finish.usage.cached_tokens


async def _plain(prompts: list[tuple[int, ...]]) -> list[list[int]]:
    async with reference_cloud() as cloud:
        return [(await _ask(cloud, prompt))[0] for prompt in prompts]


def test_answers_are_the_same_and_the_beginning_is_prefilled_once() -> None:
    async def main() -> None:
        expected = await _plain(PROMPTS)
        async with reference_cloud(prefix_cache_bytes=CACHE_BYTES) as cloud:
            found = [await _ask(cloud, prompt) for prompt in PROMPTS]
            assert [ids for ids, _ in found] == expected
            assert [cached for _, cached in found] == [0, COMMON, COMMON]
            status = cloud.prefill.status()
            total = sum(len(prompt) for prompt in PROMPTS)
            assert status.cached_tokens_total == 2 * COMMON
            assert status.prefilled_tokens_total == total - 2 * COMMON

    run_virtual(main())


def test_a_prompt_asked_again_still_computes_its_last_token() -> None:
    async def main() -> None:
        prompt = BEGINNING[:COMMON]
        async with reference_cloud(prefix_cache_bytes=CACHE_BYTES) as cloud:
            first, again = await _ask(cloud, prompt), await _ask(cloud, prompt)
            assert (first[0], first[1], again[1]) == (again[0], 0, 64)

    run_virtual(main())


def test_a_corrupted_block_changes_the_answer() -> None:
    """So the cells of the cache are what the answer is made from."""

    async def main() -> None:
        expected = await _plain(PROMPTS[:2])
        async with reference_cloud(prefix_cache_bytes=CACHE_BYTES) as cloud:
            store = cloud.prefill.prefixes.store

            def corrupting(keys, ends, cells, where):  # type: ignore[no-untyped-def]
                kept = cells.copy()
                kept[0, 0, 70] += 1
                store(keys, ends, kept, where)

            cloud.prefill.prefixes.store = corrupting  # type: ignore[method-assign]
            assert (await _ask(cloud, PROMPTS[0]))[0] == expected[0]
            ids, cached = await _ask(cloud, PROMPTS[1])
            assert cached == COMMON
            assert ids != expected[1]

    run_virtual(main())


def test_a_tenant_never_hits_what_another_one_sent() -> None:
    async def main() -> None:
        async with reference_cloud(prefix_cache_bytes=CACHE_BYTES) as cloud:
            for tenant in ("a", "b", ""):
                assert (await _ask(cloud, PROMPTS[0], tenant))[1] == 0
            for tenant in ("a", "b", ""):
                assert (await _ask(cloud, PROMPTS[1], tenant))[1] == COMMON

    run_virtual(main())


def test_tenants_share_the_prefixes_that_the_operator_lists() -> None:
    groups = Groups([Group(shared_prefixes=(LISTED,))])

    async def main() -> None:
        async with reference_cloud(groups=groups, prefix_cache_bytes=CACHE_BYTES) as cloud:
            prompt = LISTED + BEGINNING
            assert (await _ask(cloud, prompt, "a"))[1] == 0
            assert (await _ask(cloud, prompt, "b"))[1] == 64 < len(LISTED)
            assert (await _ask(cloud, prompt, "b"))[1] == 256

    run_virtual(main())


def test_the_holder_of_a_prefix_is_preferred() -> None:
    async def main() -> None:
        async with reference_cloud(prefill_workers=3, prefix_cache_bytes=CACHE_BYTES) as cloud:
            other = tuple(b"Something else altogether. " * 6)
            cached = [(await _ask(cloud, each))[1] for each in (*PROMPTS, other, *PROMPTS)]
            assert cached[:4] == [0, COMMON, COMMON, 0]
            assert all(cached[4:])
            work = [worker.counters for worker in cloud.prefills]
            assert sorted(each.prefilled_tokens > 0 for each in work) == [False, True, True]
            assert sum(each.cached_tokens > 0 for each in work) == 1

    run_virtual(main())


def test_a_busy_holder_is_passed_over() -> None:
    async def main() -> None:
        async with reference_cloud(prefill_workers=2, prefix_cache_bytes=CACHE_BYTES) as cloud:
            await _ask(cloud, PROMPTS[0])
            holder, other = cloud.membership.with_role(private.ROLE_PREFILL, "default")
            holder.open_streams += 2
            assert (await _ask(cloud, PROMPTS[1]))[1] == 0
            holder.open_streams -= 2
            assert other.prefixes.match([]) == 0
            assert [worker.counters.cached_tokens for worker in cloud.prefills] == [0, 0]

    run_virtual(main())


def test_hits_do_not_fool_the_estimate_of_the_time_to_first_token() -> None:
    async def main() -> None:
        async with reference_cloud(prefix_cache_bytes=CACHE_BYTES, step_s=1.0) as cloud:
            await _ask(cloud, PROMPTS[0])
            per_token_s = cloud.gateway.cloud_speed.per_token_s
            for _ in range(20):
                assert (await _ask(cloud, PROMPTS[0]))[1] == COMMON
            assert cloud.gateway.cloud_speed.per_token_s == per_token_s

    run_virtual(main())
