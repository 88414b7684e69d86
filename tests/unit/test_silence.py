"""Noticing silence, and computing to the end, on a virtual clock."""

from __future__ import annotations

import asyncio

import pytest

from segue_cloud.gateway.silence import Silence, unless_silent
from segue_cloud.worker.compute import InlineCompute
from segue_protocol.errors import DeadlineExceeded
from tests.virtual_clock import VirtualLoop, run_virtual


def test_silence_is_told_again_and_again_and_begins_anew_with_every_sound() -> None:
    async def main() -> list[float]:
        told: list[float] = []
        loop = asyncio.get_running_loop()
        with Silence(1.0, lambda: told.append(loop.time())) as silence:
            for _ in range(5):
                await asyncio.sleep(0.75)
                silence.heard()
            await asyncio.sleep(2.5)
            silence.expect(False)
            await asyncio.sleep(5.0)
            silence.expect(True)
            await asyncio.sleep(1.25)
        await asyncio.sleep(5.0)
        return told

    assert run_virtual(main()) == pytest.approx([4.75, 5.75, 12.25])


def test_a_silent_worker_ends_the_block() -> None:
    async def main() -> float:
        async def listen() -> None:
            with unless_silent("decode worker 7", 2.0) as silence:
                await asyncio.sleep(1.5)
                silence.heard()
                await asyncio.sleep(100.0)

        with pytest.raises(DeadlineExceeded, match=r"decode worker 7 was silent for 2\.0 s"):
            await listen()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(3.5)


def test_a_block_that_ends_in_time_leaves_no_timer() -> None:
    async def main() -> None:
        with unless_silent("decode worker 7", 2.0):
            await asyncio.sleep(1.0)
        await asyncio.sleep(10.0)

    run_virtual(main())


def test_a_cancelled_call_is_over_when_it_has_ended() -> None:
    async def main() -> float:
        compute = InlineCompute()
        call = asyncio.create_task(compute.run(compute.owe, 2.0))
        for _ in range(2):
            await asyncio.sleep(0.5)
            call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(2.0)


@pytest.mark.parametrize(("forgiving", "expected"), [(True, [5.5, 6.5]), (False, [4.5, 5.5, 6.5])])
def test_a_process_that_was_held_up_takes_nobody_for_silent(
    forgiving: bool, expected: list[float]
) -> None:
    """What was sent meanwhile may lie unread; a heartbeat of one's own is due all the same."""

    async def main() -> list[float]:
        told: list[float] = []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        with Silence(1.0, lambda: told.append(loop.time()), forgiving=forgiving):
            loop.call_later(0.5, loop.hold_up, 4.0)
            await asyncio.sleep(7.0)
        return told

    assert run_virtual(main()) == pytest.approx(expected)
