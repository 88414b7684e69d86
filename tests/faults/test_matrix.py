"""SIGKILL and SIGSTOP of a worker in each state of a request; two workers of each role.

Every case: the answer ends with the tokens of an undisturbed one, everything
held returns to zero, and what a frozen process does when it wakes changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from demos.cluster import Cluster, running_cluster
from segue_protocol.wire import private, public
from tests.faults.raw_answer import MAX_TOKENS, raw_answer
from tests.processes import TINY, is_idle, stubs, wait_for

PROMPT = "A long way to go, and a long story to tell on the way. " * 30
LONG_PROMPT = PROMPT * 6  # a prefill worker is busy with it for a while
CREDIT = 6
PREFILL, DECODE = private.ROLE_PREFILL, private.ROLE_DECODE

both_signals = pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name
)
both_roles = pytest.mark.parametrize("role", [PREFILL, DECODE], ids=["prefill", "decode"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    flags = ["--prefill-workers", "2", "--decode-workers", "2", "--unclaimed-s", "1"]
    # A frozen worker must stay a member until the test has seen what it waits for.
    flags += ["--lease-s", "5", "--drain-grace-s", "3", "--pages", "256"]
    with running_cluster(TINY, *flags) as running:
        yield running


@pytest.fixture(autouse=True)
def _nobody_stays_frozen(cluster: Cluster) -> Iterator[None]:
    """A case that fails half-way must not fail the next ones."""
    yield
    for child in Path(f"/proc/{cluster.process.pid}/task").glob("*/children"):
        for pid in child.read_text().split():
            os.kill(int(pid), signal.SIGCONT)


@pytest.fixture(scope="module")
def expected(cluster: Cluster) -> dict[str, list[int]]:
    """The undisturbed answers."""

    async def main() -> dict[str, list[int]]:
        whole = {}
        for prompt in (PROMPT, LONG_PROMPT):
            async with raw_answer(cluster, prompt, credit=MAX_TOKENS) as answer:
                whole[prompt] = await answer.whole()
        return whole

    return asyncio.run(main())


def _complete(status: private.ClusterStatus) -> bool:
    ready = [worker.role for worker in status.workers if worker.ready]
    return sorted(ready) == [PREFILL, PREFILL, DECODE, DECODE] and is_idle(status)


async def _holder(cluster: Cluster, role: private.Role) -> int:
    """The worker that holds the only request."""

    def holders(status: private.ClusterStatus) -> list[int]:
        return [each.pid for each in status.workers if each.role == role and each.slots_used]

    return holders(await wait_for(cluster, lambda status: bool(holders(status))))[0]


async def _recover(
    cluster: Cluster, victim: int, number: signal.Signals, expected: list[int]
) -> None:
    """Nothing is held; wake the frozen one, wait until all is as before, ask once more."""
    await wait_for(cluster, is_idle, within_s=10)
    if number == signal.SIGSTOP:
        os.kill(victim, signal.SIGCONT)
    status = await wait_for(cluster, _complete)
    pids = [worker.pid for worker in status.workers]
    assert (victim in pids) == (number == signal.SIGSTOP), "a killed one is replaced"
    async with raw_answer(cluster, PROMPT, credit=MAX_TOKENS) as answer:
        assert await answer.whole() == expected
    await wait_for(cluster, is_idle)


@both_signals
@both_roles
def test_before_it_is_accepted(
    cluster: Cluster, expected: dict[str, list[int]], role: private.Role, number: signal.Signals
) -> None:
    """WAITING: the offer lies at a worker that says nothing."""

    async def main() -> None:
        status = await wait_for(cluster, _complete)
        # The first of equals is asked first.
        victim = next(worker.pid for worker in status.workers if worker.role == role)
        os.kill(victim, signal.SIGSTOP)
        async with raw_answer(cluster, PROMPT, credit=MAX_TOKENS) as answer:
            assert (await answer.found()).state == public.REQUEST_STATE_WAITING
            os.kill(victim, number)
            assert await answer.whole() == expected[PROMPT]
            assert victim not in await answer.steps("prefill") + await answer.steps("stream")
        await _recover(cluster, victim, number, expected[PROMPT])

    asyncio.run(main())


@both_signals
@both_roles
def test_while_it_prefills(
    cluster: Cluster, expected: dict[str, list[int]], role: private.Role, number: signal.Signals
) -> None:
    async def main() -> None:
        await wait_for(cluster, _complete)
        async with raw_answer(cluster, LONG_PROMPT, credit=MAX_TOKENS) as answer:
            await answer.reach(public.REQUEST_STATE_PREFILLING)
            victim = await _holder(cluster, role)
            os.kill(victim, number)
            assert await answer.whole() == expected[LONG_PROMPT]
            assert victim not in await answer.steps("stream")
        await _recover(cluster, victim, number, expected[PROMPT])

    asyncio.run(main())


@both_signals
@both_roles
def test_while_its_cells_move(
    cluster: Cluster, expected: dict[str, list[int]], role: private.Role, number: signal.Signals
) -> None:
    """TRANSFERRING, held there by a decode worker that does not pull."""

    async def main() -> None:
        await wait_for(cluster, _complete)
        async with raw_answer(cluster, LONG_PROMPT, credit=MAX_TOKENS) as answer:
            await answer.reach(public.REQUEST_STATE_PREFILLING)
            decoder = await _holder(cluster, DECODE)
            os.kill(decoder, signal.SIGSTOP)
            await answer.reach(public.REQUEST_STATE_TRANSFERRING)
            victim = decoder if role == DECODE else (await answer.steps("prefill"))[0]
            os.kill(victim, number)
            if victim != decoder:
                os.kill(decoder, signal.SIGCONT)
            assert await answer.whole() == expected[LONG_PROMPT]
        await _recover(cluster, victim, number, expected[PROMPT])

    asyncio.run(main())


@both_signals
@pytest.mark.parametrize("parked", [False, True], ids=["decoding", "parked"])
def test_while_it_decodes(
    cluster: Cluster, expected: dict[str, list[int]], number: signal.Signals, parked: bool
) -> None:
    """The victim wrote a part of the answer, another one the rest."""

    async def main() -> None:
        await wait_for(cluster, _complete)
        credit = CREDIT if parked else MAX_TOKENS - 1
        async with raw_answer(cluster, PROMPT, credit=credit) as answer:
            await answer.read_through(3)
            if parked:
                await answer.reach(public.REQUEST_STATE_PARKED)
            victim = (await answer.steps("stream"))[0]
            os.kill(victim, number)
            assert await answer.whole() == expected[PROMPT]
            # A prefill makes one token too, which may be all that was left to make.
            writers = await answer.steps("stream") + (await answer.steps("prefill"))[1:]
            assert writers[0] == victim
            assert writers[-1] != victim
        await _recover(cluster, victim, number, expected[PROMPT])

    asyncio.run(main())


@both_signals
def test_prefill_worker_after_its_cells_are_pulled(
    cluster: Cluster, expected: dict[str, list[int]], number: signal.Signals
) -> None:
    """Nobody needs it any more."""

    async def main() -> None:
        await wait_for(cluster, _complete)
        async with raw_answer(cluster, PROMPT, credit=CREDIT) as answer:
            await answer.reach(public.REQUEST_STATE_PARKED)
            (victim,) = await answer.steps("prefill")
            os.kill(victim, number)
            assert await answer.whole() == expected[PROMPT]
            assert len(await answer.steps("prefill")) == 1, "nothing is computed twice"
        await _recover(cluster, victim, number, expected[PROMPT])

    asyncio.run(main())


def test_pools_full_of_parked_requests_serve_new_ones(
    cluster: Cluster, expected: dict[str, list[int]]
) -> None:
    """The oldest parked ones are evicted, and computed again when their devices ask for more."""

    async def main() -> None:
        await wait_for(cluster, _complete)
        async with AsyncExitStack() as held:
            parked = []
            for _ in range(3):  # a pool holds one of them
                opened = raw_answer(cluster, LONG_PROMPT, credit=CREDIT)
                parked.append(await held.enter_async_context(opened))
                await parked[-1].read_through(CREDIT)
            async with raw_answer(cluster, LONG_PROMPT, credit=MAX_TOKENS) as new:
                assert await new.whole() == expected[LONG_PROMPT]
            prefills = []
            for answer in parked:
                assert await answer.whole() == expected[LONG_PROMPT]
                prefills.append(len(await answer.steps("prefill")))
            assert prefills[0] > 1, "it was evicted"
        await wait_for(cluster, is_idle, within_s=10)

    asyncio.run(main())


@both_roles
def test_drained_while_it_prefills(
    cluster: Cluster, expected: dict[str, list[int]], role: private.Role
) -> None:
    """SIGTERM: what runs is finished, and nothing is computed twice."""

    async def main() -> None:
        await wait_for(cluster, _complete)
        async with raw_answer(cluster, LONG_PROMPT, credit=MAX_TOKENS) as answer:
            await answer.reach(public.REQUEST_STATE_PREFILLING)
            victim = await _holder(cluster, role)
            os.kill(victim, signal.SIGTERM)
            assert await answer.whole() == expected[LONG_PROMPT]
            if role == PREFILL:
                assert await answer.steps("prefill") == [victim]
        await wait_for(cluster, lambda status: _left(status, victim) and _complete(status))

    asyncio.run(main())


def test_drained_while_it_holds_a_parked_request(
    cluster: Cluster, expected: dict[str, list[int]]
) -> None:
    """By the gateway's command: new ones go elsewhere, the parked one is moved, nothing is lost."""

    async def main() -> None:
        await wait_for(cluster, _complete)
        async with (
            raw_answer(cluster, PROMPT, credit=CREDIT) as parked,
            stubs(cluster) as (_, join),
        ):
            await parked.reach(public.REQUEST_STATE_PARKED)
            (victim,) = await parked.steps("stream")
            drain = private.ControlRequest(worker=str(victim), drain=private.Drain())
            told = await join.Control(drain)
            assert told.worker == f"decode worker {victim}"
            async with raw_answer(cluster, PROMPT, credit=MAX_TOKENS) as other:
                assert await other.whole() == expected[PROMPT]
                assert await other.steps("stream") != [victim]
            await wait_for(cluster, lambda status: _left(status, victim))
            assert await parked.whole() == expected[PROMPT]
            assert (await parked.steps("stream"))[-1] != victim
        await wait_for(cluster, _complete)

    asyncio.run(main())


def _left(status: private.ClusterStatus, pid: int) -> bool:
    return pid not in [worker.pid for worker in status.workers]
