"""The server's queue: bounded, in order, and empty again whatever happens."""

from __future__ import annotations

import asyncio

import pytest

from segue_device.server.turns import Turns
from segue_protocol.errors import Overloaded, Unavailable
from tests.virtual_clock import run_virtual


async def _hold(turns: Turns, name: str, order: list[str], seconds: float = 1.0) -> None:
    async with turns.turn():
        order.append(name)
        await asyncio.sleep(seconds)


def test_turns_come_in_order_and_never_together() -> None:
    async def main() -> None:
        turns, order = Turns(running=1, waiting=4), []
        names = ["a", "b", "c"]
        await asyncio.gather(*(_hold(turns, name, order) for name in names))
        assert order == names
        assert asyncio.get_running_loop().time() == pytest.approx(3.0)
        turns.check_integrity()

    run_virtual(main())


def test_a_full_queue_refuses_at_once() -> None:
    async def main() -> None:
        turns, order = Turns(running=2, waiting=1), []
        tasks = [asyncio.create_task(_hold(turns, name, order)) for name in "abc"]
        await asyncio.sleep(0)
        assert (turns.running, turns.waiting) == (2, 1)
        with pytest.raises(Overloaded, match="2 requests are being answered and 1") as full:
            async with turns.turn():
                pass
        assert full.value.retry_after_s
        await asyncio.gather(*tasks)
        turns.check_integrity()

    run_virtual(main())


def test_who_leaves_gives_up_place_or_turn() -> None:
    async def main() -> None:
        turns, order = Turns(running=1, waiting=4), []
        first, second, third = [asyncio.create_task(_hold(turns, name, order)) for name in "abc"]
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        assert (turns.running, turns.waiting) == (1, 1)
        first.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert order == ["a", "c"]
        turns.check_integrity()

    run_virtual(main())


def test_an_error_in_a_turn_gives_it_back() -> None:
    async def main() -> None:
        turns = Turns(running=1, waiting=0)
        with pytest.raises(ValueError, match="mine"):
            async with turns.turn():
                raise ValueError("mine")
        turns.check_integrity()

    run_virtual(main())


def test_close_ends_turns_and_waiting() -> None:
    async def main() -> None:
        turns, order = Turns(running=1, waiting=1), []
        tasks = [asyncio.create_task(_hold(turns, name, order)) for name in "ab"]
        await asyncio.sleep(0)
        turns.close()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in ended] == [Unavailable, Unavailable]
        with pytest.raises(Unavailable):
            async with turns.turn():
                pass
        assert order == ["a"]
        turns.check_integrity()

    run_virtual(main())
