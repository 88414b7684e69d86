"""The cloud's end of one answer, as the device sees it."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from segue_device.transports.base import CloudStream, Transport
from segue_protocol.errors import DeadlineExceeded, SegueError
from segue_protocol.wire import public


class CloudPeer:
    """Sends in order without making the caller wait, and reports what comes back.

    `run` is the only task that touches the stream. A cloud that says nothing
    for `silence_limit_s`, not even a heartbeat, is taken for lost.
    """

    def __init__(self, transport: Transport, *, silence_limit_s: float) -> None:
        self._transport = transport
        self._silence_limit_s = silence_limit_s
        self._put, self._outbox = anyio.create_memory_object_stream[public.GenerateRequest](
            math.inf
        )
        self.alive = True
        self.finish: public.Finish | None = None

    def send(self, request: public.GenerateRequest) -> None:
        """Queue a message. One to a cloud that is gone is dropped: nobody needs it any more."""
        if self.alive:
            self._put.send_nowait(request)

    async def run(
        self,
        on_response: Callable[[public.GenerateResponse], None],
        on_lost: Callable[[SegueError | None], None],
    ) -> None:
        """Talk until the stream ends; then `on_lost` with its error, None after `finish`."""
        error: SegueError | None = None
        try:
            with anyio.fail_after(self._silence_limit_s):
                stream = await self._transport.open()
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._send_all, stream)
                    error = await self._receive_all(stream, on_response)
                    tasks.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()
        except SegueError as failed:
            error = failed
        except TimeoutError:
            error = self._silent()
        finally:
            self.alive = False
            self._put.close()
            self._outbox.close()
        on_lost(error)

    async def _send_all(self, stream: CloudStream) -> None:
        try:
            async for request in self._outbox:
                await stream.send(request)
        except SegueError:
            return  # the receiving side learns the reason

    async def _receive_all(
        self, stream: CloudStream, on_response: Callable[[public.GenerateResponse], None]
    ) -> SegueError | None:
        try:
            while True:
                with anyio.fail_after(self._silence_limit_s):
                    response = await stream.receive()
                if response is None:
                    return None
                if response.HasField("finish"):
                    self.finish = response.finish
                on_response(response)
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
