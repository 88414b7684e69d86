"""Engines for asynchronous code: who may call, on which thread, and how it is stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio
from anyio import from_thread
from anyio.lowlevel import checkpoint_if_cancelled, current_token

from segue_device.engines.base import Cancel, Capabilities, DeviceEngine
from segue_device.engines.checks import engine_closed
from segue_protocol.errors import InvalidRequest
from segue_protocol.identity import ModelIdentity

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

T = TypeVar("T")


class Runner(Protocol):
    """A :class:`DeviceEngine` behind awaitable calls, one at a time.

    A call while another one is running raises InvalidRequest with reason
    ``ENGINE_BUSY``: two users would write one sequence, and queueing the
    second would only hide that. `close` is the exception: it cancels what runs
    and waits for it. Everything the engine raises comes through. When the
    awaiting task is cancelled, the engine is cancelled too and the task waits
    until it has stopped; ``cells`` then tells what was finished.
    """

    @property
    def identity(self) -> ModelIdentity: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def cells(self) -> Sequence[tuple[int, int]]:
        """As of now; it grows while an append is running."""
        ...

    async def append(
        self, token_ids: Sequence[int], positions: Sequence[int], *, cancel: Cancel
    ) -> None: ...

    async def logits(self) -> npt.NDArray[np.float32]: ...

    async def rewind(self, cells: int) -> bool: ...

    async def use(self, function: Callable[[DeviceEngine], T]) -> T:
        """`function(engine)` where the engine's calls are made: what takes several of them.

        A cancel waits for its end, so it must be short. It must not keep or close the engine.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Call:
    """The call that is running, and how to stop and await it."""

    cancel: Cancel
    ended: anyio.Event = field(default_factory=anyio.Event)


class EngineRunner:
    """A :class:`Runner` that gives the engine a thread of its own.

    The engine must be idle when it is handed over and belongs to the runner
    from then on: `close` closes it.
    """

    def __init__(self, engine: DeviceEngine) -> None:
        self._engine = engine
        # Fixed for an engine's life; kept so that reading them asks no busy engine.
        self._identity, self._capabilities = engine.identity, engine.capabilities
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="segue-engine")
        self._running: _Call | None = None
        self._closed = False

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def cells(self) -> Sequence[tuple[int, int]]:
        return self._engine.cells

    async def append(
        self, token_ids: Sequence[int], positions: Sequence[int], *, cancel: Cancel
    ) -> None:
        await self._call(partial(self._engine.append, token_ids, positions, cancel=cancel), cancel)

    async def logits(self) -> npt.NDArray[np.float32]:
        return await self._call(self._engine.logits, Cancel())

    async def rewind(self, cells: int) -> bool:
        return await self._call(partial(self._engine.rewind, cells), Cancel())

    async def use(self, function: Callable[[DeviceEngine], T]) -> T:
        return await self._call(partial(function, self._engine), Cancel())

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            if self._running is not None:
                self._running.cancel.set()
                await self._running.ended.wait()
            await self._on_thread(self._engine.close, Cancel())
        self._thread.shutdown(wait=False)

    async def _call(self, function: Callable[[], T], cancel: Cancel) -> T:
        await checkpoint_if_cancelled()
        if self._closed:
            raise engine_closed()
        if self._running is not None:
            raise engine_busy()
        self._running = call = _Call(cancel)
        try:
            return await self._on_thread(function, cancel)
        finally:
            self._running = None
            call.ended.set()

    async def _on_thread(self, function: Callable[[], T], cancel: Cancel) -> T:
        """Run on the engine's thread; return only when that thread is idle again."""
        token, done = current_token(), anyio.Event()

        def work() -> T:
            try:
                return function()
            finally:
                from_thread.run_sync(done.set, token=token)

        future = self._thread.submit(work)
        try:
            await done.wait()
        except anyio.get_cancelled_exc_class():
            cancel.set()
            with anyio.CancelScope(shield=True):
                await done.wait()
            raise
        # `done` is the last thing `work` does, so this waits microseconds at most.
        return future.result()


class InlineRunner:
    """A :class:`Runner` that calls the engine in the event loop itself.

    For deterministic tests on a virtual clock. `cost(n_tokens, n_cells)`, where
    given, is awaited for every chunk of an append: `n_tokens` appended at
    `n_cells` cells. Time passes there, and a cancel cuts it short as it would a
    real engine: the chunk that was under way is taken back. Cancels must come
    from the event loop's thread.
    """

    def __init__(
        self,
        engine: DeviceEngine,
        cost: Callable[[int, int], Awaitable[None]] | None = None,
    ) -> None:
        self._engine = engine
        self._cost = cost
        self._finished_cells: int | None = None
        self._running: _Call | None = None
        self._closed = False

    @property
    def identity(self) -> ModelIdentity:
        return self._engine.identity

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    @property
    def cells(self) -> Sequence[tuple[int, int]]:
        return self._engine.cells[: self._finished_cells]

    async def append(
        self, token_ids: Sequence[int], positions: Sequence[int], *, cancel: Cancel
    ) -> None:
        await self._enter()
        before = len(self._engine.cells)
        self._engine.append(token_ids, positions, cancel=cancel)
        if self._cost is None:
            return
        self._running = call = _Call(cancel)
        self._finished_cells = before
        try:
            await self._let_time_pass(len(token_ids), before, self._cost, cancel)
        finally:
            self._finished_cells, self._running = None, None
            call.ended.set()

    async def logits(self) -> npt.NDArray[np.float32]:
        await self._enter()
        return self._engine.logits()

    async def rewind(self, cells: int) -> bool:
        await self._enter()
        return self._engine.rewind(cells)

    async def use(self, function: Callable[[DeviceEngine], T]) -> T:
        await self._enter()
        return function(self._engine)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._running is not None:
            self._running.cancel.set()
            with anyio.CancelScope(shield=True):
                await self._running.ended.wait()
        self._engine.close()

    async def _enter(self) -> None:
        await checkpoint_if_cancelled()
        if self._closed:
            raise engine_closed()
        if self._running is not None:
            raise engine_busy()

    async def _let_time_pass(
        self,
        tokens: int,
        finished: int,
        cost: Callable[[int, int], Awaitable[None]],
        cancel: Cancel,
    ) -> None:
        """Await the cost chunk by chunk; on a cancel keep only the finished chunks."""
        step = self._engine.capabilities.chunk_tokens
        end = finished + tokens
        try:
            while finished < end:
                chunk = min(step, end - finished)
                with anyio.CancelScope() as scope, cancel.listening(scope.cancel):
                    await cost(chunk, finished)
                cancel.raise_if_set()
                finished += chunk
                self._finished_cells = finished
        except anyio.get_cancelled_exc_class():
            cancel.set()
            raise
        finally:
            if finished < end:
                rewound = self._engine.rewind(finished)
                assert rewound, "InlineRunner with a cost needs an engine that can rewind"


def engine_busy() -> InvalidRequest:
    """The error of a call that overlaps another one."""
    return InvalidRequest(
        "the engine is busy with another call; await that one first, "
        "or load a second engine for a second answer",
        reason="ENGINE_BUSY",
    )
