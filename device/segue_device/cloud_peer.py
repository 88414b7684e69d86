"""The cloud's end of one answer, as the device sees it."""

from __future__ import annotations

from typing import Protocol

import anyio

from segue_device.transports.base import CloudStream, Transport
from segue_protocol.errors import DeadlineExceeded, SegueError, Unavailable
from segue_protocol.wire import public

# A cloud sends heartbeats every few seconds; one that says nothing for so long is lost.
SILENCE_LIMIT_S = 15.0


class Listener(Protocol):
    """What happens to the answer. Called from the peer's task."""

    def first_message(self) -> public.GenerateRequest | None:
        """What opens the next stream; None when no cloud is needed any more."""
        ...

    def on_response(self, response: public.GenerateResponse) -> None: ...

    def on_stream_end(self, error: SegueError | None) -> float | None:
        """The stream is over; returns the seconds until the next one, None for the end."""
        ...


class CloudPeer:
    """Sends in order without making the caller wait, and reports what comes back.

    `run` is the only task that touches a stream, and may be called again after
    it has returned. A cloud that says nothing for `silence_limit_s`, not even a
    heartbeat, is taken for lost.
    """

    def __init__(self, transport: Transport, *, silence_limit_s: float) -> None:
        self._transport = transport
        self._silence_limit_s = silence_limit_s
        self._outbox: list[public.GenerateRequest] = []
        self._queued = anyio.Event()
        self._stream_scope = anyio.CancelScope()
        # The connection there is may have died unnoticed: while it was silent, or we slept.
        self._distrusts = False
        self.alive = True
        self.finish: public.Finish | None = None

    def send(self, request: public.GenerateRequest) -> None:
        """Queue a message. One to a cloud that is gone is dropped: nobody needs it any more."""
        if self.alive:
            self._outbox.append(request)
            self._queued.set()

    def hang_up(self) -> None:
        """End the stream there is now, as if the network had; what was queued was for it."""
        self._outbox.clear()
        self._distrusts = True
        self._stream_scope.cancel()

    async def run(self, listener: Listener) -> None:
        """Talk, over as many streams as it takes."""
        self.alive = True
        try:
            while (first := listener.first_message()) is not None:
                error = await self._one_stream(first, listener)
                self._distrusts |= isinstance(error, DeadlineExceeded)
                delay_s = listener.on_stream_end(error)
                if delay_s is None:
                    return
                await anyio.sleep(delay_s)
        finally:
            self.alive = False
            self._outbox.clear()

    async def _one_stream(
        self, first: public.GenerateRequest, listener: Listener
    ) -> SegueError | None:
        """From opening to end; returns the stream's error, None after an orderly end."""
        with anyio.CancelScope() as self._stream_scope:
            return await self._talk(first, listener)
        return Unavailable("this device hung up", reason="HUNG_UP")

    async def _talk(self, first: public.GenerateRequest, listener: Listener) -> SegueError | None:
        try:
            with anyio.fail_after(self._silence_limit_s):
                anew, self._distrusts = self._distrusts, False
                stream = await self._transport.open(anew=anew)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._send_all, stream, first)
                    error = await self._receive_all(stream, listener)
                    tasks.cancel_scope.cancel()
                return error
            finally:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()
        except SegueError as error:
            return error
        except TimeoutError:
            return self._silent()

    async def _send_all(self, stream: CloudStream, first: public.GenerateRequest) -> None:
        try:
            await stream.send(first)
            while True:
                while self._outbox:
                    await stream.send(self._outbox.pop(0))
                self._queued = anyio.Event()
                await self._queued.wait()
        except SegueError:
            return  # the receiving side learns the reason

    async def _receive_all(self, stream: CloudStream, listener: Listener) -> SegueError | None:
        try:
            while True:
                with anyio.fail_after(self._silence_limit_s):
                    response = await stream.receive()
                if response is None:
                    return None
                if response.HasField("finish"):
                    self.finish = response.finish
                listener.on_response(response)
        except SegueError as error:
            return error
        except TimeoutError:
            return self._silent()

    def _silent(self) -> SegueError:
        return DeadlineExceeded(
            f"the cloud said nothing for {self._silence_limit_s} s, not even a heartbeat; "
            "check the network",
            reason="CLOUD_SILENT",
        )
