"""Runners: one thread, one user, and a cancel that waits for the engine."""

from __future__ import annotations

import threading

import anyio
import numpy as np
import pytest

from segue_device.engines import (
    Cancel,
    EngineRunner,
    InlineRunner,
    ReferenceDeviceEngine,
)
from segue_protocol.errors import (
    Cancelled,
    InvalidRequest,
)
from segue_protocol.reference import reference_logits
from tests.contract.engine_cases import (
    COMPACT,
    IDS,
)


class Noting(ReferenceDeviceEngine):
    """Notes the threads it is called on."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def append(self, token_ids: list[int], positions: list[int], *, cancel: Cancel) -> None:
        self.threads.add(threading.get_ident())
        super().append(token_ids, positions, cancel=cancel)

    def logits(self) -> np.ndarray:
        self.threads.add(threading.get_ident())
        return super().logits()

    def rewind(self, cells: int) -> bool:
        self.threads.add(threading.get_ident())
        return super().rewind(cells)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        super().close()


class Blocking(Noting):
    """Its append lasts until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.left = threading.Event(), False

    def append(self, token_ids: list[int], positions: list[int], *, cancel: Cancel) -> None:
        stopped = threading.Event()
        with cancel.listening(stopped.set):
            self.entered.set()
            stopped.wait()
        self.left = True
        super().append(token_ids, positions, cancel=cancel)


def test_runner_owns_one_thread() -> None:
    async def main() -> None:
        engine = Noting()
        runner = EngineRunner(engine)
        await runner.append(IDS[:20], range(20), cancel=Cancel())
        expected = reference_logits(IDS[:20], COMPACT[:20])
        assert np.array_equal(await runner.logits(), expected)
        assert await runner.rewind(10)
        assert len(runner.cells) == 10
        assert runner.identity == engine.identity
        assert runner.capabilities == engine.capabilities
        with pytest.raises(InvalidRequest, match="no logits"):
            await runner.logits()
        await runner.close()
        await runner.close()
        with pytest.raises(InvalidRequest) as refused:
            await runner.logits()
        assert refused.value.reason == "ENGINE_CLOSED"
        assert len(engine.threads) == 1
        assert threading.get_ident() not in engine.threads

    anyio.run(main)


def test_runner_waits_for_the_engine_when_its_task_is_cancelled() -> None:
    async def main() -> None:
        engine, cancel = Blocking(), Cancel()
        runner = EngineRunner(engine)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel_soon() -> None:
                    await anyio.to_thread.run_sync(engine.entered.wait)
                    scope.cancel()

                group.start_soon(cancel_soon)
                await runner.append(IDS[:5], COMPACT[:5], cancel=cancel)
        assert scope.cancelled_caught
        assert cancel.is_set()
        assert engine.left
        assert await runner.rewind(0), "the engine is free again"
        await runner.close()

    anyio.run(main)


def test_runner_refuses_a_second_user_and_close_stops_the_first() -> None:
    async def main() -> None:
        engine, ended = Blocking(), []
        runner = EngineRunner(engine)

        async def first() -> None:
            try:
                await runner.append(IDS[:5], COMPACT[:5], cancel=Cancel())
            except Cancelled:
                ended.append("cancelled")

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await anyio.to_thread.run_sync(engine.entered.wait)
            with pytest.raises(InvalidRequest) as refused:
                await runner.logits()
            assert refused.value.reason == "ENGINE_BUSY"
            await runner.close()
        assert ended == ["cancelled"]
        assert len(engine.threads) == 1

    anyio.run(main)


def test_inline_runner_lets_time_pass_by_chunks() -> None:
    async def main() -> None:
        costs: list[tuple[int, int, int]] = []

        async def cost(tokens: int, cells: int) -> None:
            costs.append((tokens, cells, len(runner.cells)))

        engine = ReferenceDeviceEngine(chunk_tokens=4)
        runner = InlineRunner(engine, cost)
        await runner.append(IDS[:10], COMPACT[:10], cancel=Cancel())
        assert costs == [(4, 0, 0), (4, 4, 4), (2, 8, 8)]
        assert engine.append_calls == 1
        assert len(runner.cells) == 10
        expected = reference_logits(IDS[:10], COMPACT[:10])
        assert np.array_equal(await runner.logits(), expected)
        await runner.close()

    anyio.run(main)


@pytest.mark.parametrize("how", ["cancel", "task", "close"])
def test_inline_runner_stops_while_time_passes(how: str) -> None:
    async def main() -> None:
        second_chunk, cancel, ended = anyio.Event(), Cancel(), []

        async def cost(tokens: int, cells: int) -> None:
            if cells:
                second_chunk.set()
                await anyio.sleep_forever()

        engine = ReferenceDeviceEngine(chunk_tokens=4)
        runner = InlineRunner(engine, cost)

        async def first() -> None:
            try:
                await runner.append(IDS[:10], COMPACT[:10], cancel=cancel)
            except Cancelled:
                ended.append("cancelled")
            finally:
                ended.append(len(runner.cells))

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await second_chunk.wait()
            assert len(runner.cells) == 4
            with pytest.raises(InvalidRequest) as refused:
                await runner.logits()
            assert refused.value.reason == "ENGINE_BUSY"
            if how == "cancel":
                cancel.set()
            elif how == "task":
                group.cancel_scope.cancel()
            else:
                await runner.close()
        assert cancel.is_set()
        assert ended == ([4] if how == "task" else ["cancelled", 4])

    anyio.run(main)
