"""The emulated network between the demo's device and its cloud."""

from __future__ import annotations

from segue_device.transports.base import CloudStream, Transport
from segue_device.transports.delayed import DelayedTransport
from segue_protocol.wire import public


class EmulatedNetwork:
    """A transport with a round trip that can be set, and that can be cut and mended.

    A cut breaks every stream there is; none can be opened until it is mended.
    """

    def __init__(self, inner: Transport, rtt_s: float) -> None:
        self._inner = inner
        self._rtt_s = rtt_s
        self._link = DelayedTransport(inner, rtt_s)
        # Those that streams opened before the last change of the round trip may run over.
        self._earlier_links: list[DelayedTransport] = []
        self.is_cut = False

    def set_round_trip(self, rtt_s: float) -> None:
        """Holds for streams opened from now on."""
        if rtt_s == self._rtt_s:
            return
        self._rtt_s = rtt_s
        if not self.is_cut:
            self._earlier_links.append(self._link)
            self._link = DelayedTransport(self._inner, rtt_s)

    async def cut(self) -> None:
        """Break every stream now and refuse every later one."""
        self.is_cut = True
        for link in (*self._earlier_links, self._link):
            await link.cut()
        self._earlier_links.clear()

    def mend(self) -> None:
        """Streams can be opened again. Idempotent."""
        if self.is_cut:
            self.is_cut = False
            self._link = DelayedTransport(self._inner, self._rtt_s)

    async def open(self, *, anew: bool = False) -> CloudStream:
        return await self._link.open(anew=anew)

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        return await self._link.get_model(request)

    async def aclose(self) -> None:
        await self._inner.aclose()
