"""SIGSTOP and SIGKILL of the gateway in each state of a request; the workers live on.

A frozen gateway goes on where it stood when it wakes, though its workers' leases
ran out meanwhile. After a killed one a client starts again at the next one with
the tokens it has. Either way the answer is that of an undisturbed one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from demos.cluster import Cluster
from segue_protocol.wire import public
from tests.faults.raw_answer import MAX_TOKENS, RawAnswer, raw_answer
from tests.faults.scene import Scene
from tests.processes import is_idle, wait_for

PROMPT = "A long way to go, and a long story to tell on the way. " * 30
LONG_PROMPT = PROMPT * 6  # a prefill worker is busy with it for a while
CREDIT = 6
LEASE_S = 2.0
FROZEN_S = 3.0  # every lease is over

STATES = (
    public.REQUEST_STATE_WAITING,
    public.REQUEST_STATE_PREFILLING,
    public.REQUEST_STATE_TRANSFERRING,
    public.REQUEST_STATE_DECODING,
    public.REQUEST_STATE_PARKED,
)


class Gateways(ExitStack):
    """One gateway at a time, started when it is asked for and the last one is dead."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.scene = scene
        self._current: Cluster | None = None

    def running(self) -> Cluster:
        if self._current is None or self._current.process.poll() is not None:
            self.close()
            flags = ("--lease-s", str(LEASE_S))
            self._current = self.enter_context(self.scene.gateway(*flags))
        return self._current


@pytest.fixture(scope="module")
def gateways() -> Iterator[Gateways]:
    with ExitStack() as held:
        yield held.enter_context(Gateways(Scene(held)))


@pytest.fixture(scope="module")
def expected(gateways: Gateways) -> dict[str, list[int]]:
    """The undisturbed answers."""

    async def main() -> dict[str, list[int]]:
        whole = {}
        for prompt in (PROMPT, LONG_PROMPT):
            async with raw_answer(gateways.running(), prompt, credit=MAX_TOKENS) as answer:
                whole[prompt] = await answer.whole()
        return whole

    return asyncio.run(main())


class Case:
    """A request brought to one state and held there by workers that say nothing."""

    def __init__(self, state: public.RequestState, scene: Scene) -> None:
        self.state = state
        held_early = state in (public.REQUEST_STATE_PREFILLING, public.REQUEST_STATE_TRANSFERRING)
        self.prompt = LONG_PROMPT if held_early else PROMPT
        self.credit = CREDIT if state == public.REQUEST_STATE_PARKED else MAX_TOKENS - 1
        self._prefill, self._decode = (scene.workers[role].pid for role in ("prefill", "decode"))

    def before(self) -> None:
        if self.state == public.REQUEST_STATE_WAITING:
            os.kill(self._prefill, signal.SIGSTOP)

    async def reach(self, answer: RawAnswer) -> None:
        if self.state == public.REQUEST_STATE_TRANSFERRING:
            await answer.reach(public.REQUEST_STATE_PREFILLING)
            os.kill(self._decode, signal.SIGSTOP)
        if self.state == public.REQUEST_STATE_DECODING:
            await answer.read_through(3)
        else:
            await answer.reach(self.state)

    def let_go(self) -> None:
        for pid in (self._prefill, self._decode):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("state", STATES, ids=public.RequestState.Name)
def test_frozen_then_killed(
    gateways: Gateways, expected: dict[str, list[int]], state: public.RequestState
) -> None:
    case = Case(state, gateways.scene)
    whole = expected[case.prompt]

    async def frozen(cluster: Cluster) -> None:
        await wait_for(cluster, is_idle)
        case.before()
        async with raw_answer(cluster, case.prompt, credit=case.credit) as answer:
            await case.reach(answer)
            os.kill(cluster.process.pid, signal.SIGSTOP)
            await asyncio.sleep(FROZEN_S)  # the fault itself
            os.kill(cluster.process.pid, signal.SIGCONT)
            case.let_go()
            assert await answer.whole() == whole
        await wait_for(cluster, is_idle, within_s=10)

    async def killed(cluster: Cluster) -> list[int]:
        case.before()
        async with raw_answer(cluster, case.prompt, credit=case.credit) as answer:
            await case.reach(answer)
            cluster.process.kill()
            return answer.ids

    async def go_on(cluster: Cluster, ids: list[int]) -> None:
        opened = raw_answer(cluster, case.prompt, credit=MAX_TOKENS, output_prefix=ids)
        async with opened as answer:
            assert await answer.whole() == whole
        await wait_for(cluster, is_idle, within_s=10)

    try:
        asyncio.run(frozen(gateways.running()))
        cluster = gateways.running()
        ids = asyncio.run(killed(cluster))
        cluster.process.wait()
    finally:
        case.let_go()
    assert whole[: len(ids)] == ids
    assert len(ids) < len(whole)
    asyncio.run(go_on(gateways.running(), ids))
