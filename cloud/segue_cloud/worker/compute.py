"""Where model code runs: one thread beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Compute(Protocol):
    """Runs one blocking call at a time."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run to the end, also when the caller is cancelled meanwhile."""
        ...

    def report(self, function: Callable[..., object], *args: object) -> None:
        """From within a call: have `function` run on the event loop, at this moment of the call."""
        ...

    def close(self) -> None: ...


class ThreadCompute:
    """One thread that owns the engine.

    A cancelled caller gets its cancellation only after the call has ended: the
    call writes into memory which the caller frees on its way out, and a
    request's lifetime is not its writer's lifetime.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._loop = asyncio.get_running_loop()
        future = self._executor.submit(function, *args, **kwargs)
        waiter = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            if not future.cancel():
                await end_of(waiter)
            raise

    def report(self, function: Callable[..., object], *args: object) -> None:
        """See the contract."""
        assert self._loop is not None, "report is for calls"
        self._loop.call_soon_threadsafe(function, *args)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


class InlineCompute:
    """Runs in the event loop itself: deterministic, for a virtual clock.

    `step_s` seconds, and what the call itself owed, pass on the loop's clock
    after every call.
    """

    def __init__(self, step_s: float = 0.0) -> None:
        self._step_s = step_s
        self._owed_s = 0.0

    def owe(self, seconds: float) -> None:
        """Instead of a sleep, from within a call: let `seconds` pass when it has ended."""
        self._owed_s += seconds

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        result = function(*args, **kwargs)
        owed_s, self._owed_s = self._owed_s, 0.0
        passing = asyncio.ensure_future(asyncio.sleep(self._step_s + owed_s))
        try:
            await asyncio.shield(passing)
        except asyncio.CancelledError:
            await end_of(passing)
            raise
        return result

    def report(self, function: Callable[..., object], *args: object) -> None:
        """See the contract: when the time has passed that the call owes by now."""
        asyncio.get_running_loop().call_later(self._owed_s, function, *args)

    def close(self) -> None:
        pass


async def end_of(call: asyncio.Future[Any]) -> None:
    """Wait for the end of a call, however often the waiting is cancelled; raises nothing of it."""
    while not call.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([call])
    if not call.cancelled():
        call.exception()  # looked at: nobody is left whom it could reach
