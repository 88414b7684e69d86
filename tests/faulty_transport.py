"""A network that fails as it is told: in the event loop, without a socket, deterministic."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle, repeat

from segue_device.transports.base import CloudStream, Transport
from segue_protocol.errors import Unavailable
from segue_protocol.wire import public


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one stream; by default nothing.

    It breaks once `responses` were received or `requests` sent, with what was under
    way lost. `silent`: nobody is told. `refused`: it does not even open.
    """

    refused: bool = False
    silent: bool = False
    responses: int | None = None
    requests: int | None = None
    # Before each response and before a break, over and over.
    delays_s: tuple[float, ...] = (0.0,)


HOLDS = Fault()
REFUSED = Fault(refused=True)


class FaultyTransport:
    """The n-th stream has the n-th fault; those beyond the list have `afterwards`."""

    def __init__(
        self, inner: Transport, faults: Sequence[Fault] = (), *, afterwards: Fault = HOLDS
    ) -> None:
        self._inner = inner
        self._faults = chain(faults, repeat(afterwards))
        self.streams: list[FaultyStream] = []  # refused ones too

    async def open(self, *, anew: bool = False) -> CloudStream:
        stream = FaultyStream(next(self._faults))
        self.streams.append(stream)
        await stream.connect(self._inner)
        return stream

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        return await self._inner.get_model(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class FaultyStream:
    """Also keeps what passed, for tests to look at."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.sent: list[public.GenerateRequest] = []
        self.received: list[public.GenerateResponse] = []
        self.broken = fault.refused
        self._delays_s = cycle(fault.delays_s)
        self._inner: CloudStream | None = None

    async def connect(self, inner: Transport) -> None:
        if self.fault.refused:
            await asyncio.sleep(next(self._delays_s))
            await self._fail()
        self._inner = await inner.open()

    async def send(self, message: public.GenerateRequest) -> None:
        assert self._inner is not None
        if len(self.sent) == self.fault.requests:
            self.broken = True
            if not self.fault.silent:
                await self._inner.aclose()
        if not self.broken:
            self.sent.append(message)
            await self._inner.send(message)
        elif not self.fault.silent:
            await self._fail()

    async def receive(self) -> public.GenerateResponse | None:
        assert self._inner is not None
        if len(self.received) == self.fault.responses:
            await asyncio.sleep(next(self._delays_s))
            self.broken = True
        response = None if self.broken else await self._inner.receive()
        if self.broken:
            await self._fail()
        if response is not None:
            await asyncio.sleep(next(self._delays_s))
            self.received.append(response)
        return response

    async def aclose(self) -> None:
        if self._inner is not None:
            await self._inner.aclose()

    async def _fail(self) -> None:
        self.broken = True
        if self.fault.silent:
            await asyncio.Event().wait()
        await self.aclose()
        raise Unavailable("the train is in a tunnel", reason="TUNNEL")
