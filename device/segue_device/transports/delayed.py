"""An emulated network: every message takes half a round trip longer.

Figures measured through it are emulated and must say so.
"""

from __future__ import annotations

import asyncio
from typing import Any

from segue_device.transports.base import CloudStream, Transport
from segue_protocol.errors import SegueError, Unavailable
from segue_protocol.wire import public


class DelayedTransport:
    """Wraps a transport; `cut` makes the emulated network fail for good."""

    def __init__(self, inner: Transport, rtt_s: float) -> None:
        self._inner = inner
        self._one_way_s = rtt_s / 2
        self._streams: list[_DelayedStream] = []
        self._is_cut = False

    async def open(self, *, anew: bool = False) -> CloudStream:
        if self._is_cut:
            raise Unavailable("the emulated network is cut", reason="NETWORK_CUT")
        stream = _DelayedStream(await self._inner.open(anew=anew), self._one_way_s)
        self._streams = [each for each in self._streams if not each.closed] + [stream]
        return stream

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        await asyncio.sleep(2 * self._one_way_s)
        return await self._inner.get_model(request)

    async def cut(self) -> None:
        """Break every stream now and every later one at once."""
        self._is_cut = True
        for stream in self._streams:
            await stream.break_off()

    async def aclose(self) -> None:
        await self._inner.aclose()


class _DelayedStream:
    """Two relays, each a queue of (due time, message): delay without loss of throughput."""

    def __init__(self, inner: CloudStream, one_way_s: float) -> None:
        self._inner = inner
        self._one_way_s = one_way_s
        self._clock = asyncio.get_running_loop().time
        self._up: asyncio.Queue[tuple[float, public.GenerateRequest]] = asyncio.Queue()
        self._down: asyncio.Queue[tuple[float, public.GenerateResponse | None]] = asyncio.Queue()
        self._error: SegueError | None = None
        self._relays = [
            asyncio.create_task(self._relay_up()),
            asyncio.create_task(self._relay_down()),
        ]
        self.closed = False

    async def send(self, message: public.GenerateRequest) -> None:
        if self._error is not None:
            raise self._error
        self._up.put_nowait((self._due_s(), message))

    async def receive(self) -> public.GenerateResponse | None:
        due_s, message = await self._down.get()
        await self._until(due_s)
        if message is None:
            self._down.put_nowait((due_s, None))
            if self._error is not None:
                raise self._error
        return message

    async def break_off(self) -> None:
        """The network is gone: an error here, a disconnect there."""
        self._end(Unavailable("the emulated network was cut", reason="NETWORK_CUT"))
        await self.aclose()

    async def aclose(self) -> None:
        self.closed = True
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        await self._inner.aclose()

    def _due_s(self) -> float:
        return self._clock() + self._one_way_s

    async def _until(self, due_s: float) -> None:
        await asyncio.sleep(max(0.0, due_s - self._clock()))

    def _end(self, error: SegueError | None) -> None:
        self._error = self._error or error
        self._down.put_nowait((self._due_s(), None))

    async def _relay_up(self) -> Any:
        try:
            while True:
                due_s, message = await self._up.get()
                await self._until(due_s)
                await self._inner.send(message)
        except SegueError:
            return  # the way down tells the error

    async def _relay_down(self) -> Any:
        try:
            while (message := await self._inner.receive()) is not None:
                self._down.put_nowait((self._due_s(), message))
            self._end(None)
        except SegueError as error:
            self._end(error)
