"""Streams and errors over gRPC (extra ``grpc``).

A fatal error crosses as gRPC status plus ``google.rpc`` details: ErrorInfo with
reason and domain ``segue``, and RetryInfo where waiting helps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Generic, NoReturn, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from segue_protocol.errors import CODES, DOMAIN, InternalError, SegueError, Unavailable, from_code
from segue_protocol.streams import MAX_MESSAGE_BYTES, Handler, Received, Sent, require_size

SentMessage = TypeVar("SentMessage", bound=Message)
Result = TypeVar("Result")

DETAILS_KEY = "grpc-status-details-bin"

CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # The defaults (1 s to 2 min, 20 s for a try) are longer than an answer can wait.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
SERVER_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # two servers on one port must fail, not share it
)


def to_status(error: SegueError) -> status_pb2.Status:
    """The google.rpc.Status of an error."""
    status = status_pb2.Status(code=CODES.index(error.code), message=error.message)
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        status.details.append(AnyMessage())
        status.details[-1].Pack(detail)
    return status


def from_rpc_error(error: grpc.aio.AioRpcError) -> SegueError:
    """The SegueError a failed call stands for; details of other domains are ignored."""
    reason, retry_after_s = None, None
    for key, value in error.trailing_metadata() or ():
        if key != DETAILS_KEY:
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                reason = info.reason
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    code = error.code().name
    if code == "INTERNAL" and reason is None:
        # No peer of ours said this: gRPC itself does when a connection breaks under a message.
        code, reason = "UNAVAILABLE", "STREAM_BROKEN"
    return from_code(code, error.details() or "", reason=reason, retry_after_s=retry_after_s)


class GrpcStream(Generic[SentMessage, Received]):
    """The client's end of a bidirectional gRPC call; `meaning` makes errors of its status."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[SentMessage, Received],
        meaning: Callable[[grpc.aio.AioRpcError], SegueError] = from_rpc_error,
    ) -> None:
        self._call = call
        self._meaning = meaning
        self._writing = asyncio.Lock()  # gRPC allows one write at a time

    async def send(self, message: SentMessage) -> None:
        require_size(message.ByteSize())
        try:
            async with self._writing:
                await _apart(self._call.write(message))
        except grpc.aio.AioRpcError as error:
            raise self._meaning(error) from error
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:  # after the end
            raise from_code("UNAVAILABLE", "the stream has ended", reason="STREAM_ENDED") from error

    async def receive(self) -> Received | None:
        try:
            message = await _apart(self._call.read())
        except grpc.aio.AioRpcError as error:
            raise self._meaning(error) from error
        return None if message is grpc.aio.EOF else cast(Received, message)

    async def aclose(self) -> None:
        self._call.cancel()


async def _apart(operation: Coroutine[Any, Any, Result]) -> Result:
    """Await a call's operation in a task of its own.

    A call that was cancelled raises CancelledError in everybody who waits for it. That is
    the end of a stream and must not look like the end of the waiting task.
    """
    task = asyncio.ensure_future(operation)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise
    if task.cancelled():
        raise Unavailable("the stream was closed", reason="CLOSED")
    return task.result()


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: SegueError) -> NoReturn:
    """End a call on the server with a SegueError."""
    await context.abort_with_status(rpc_status.to_status(to_status(error)))


async def serve_stream(
    handler: Handler[Sent, Received],
    requests: AsyncIterator[Sent],
    context: grpc.aio.ServicerContext[Sent, Received],
) -> None:
    """Run a handler as a gRPC method; its clean-up has run when the method returns."""
    try:
        async with aclosing(handler(requests)) as responses:
            async for response in responses:
                await context.write(response)
    except SegueError as error:
        await abort(context, error)


async def serve_unary(
    handler: Callable[[Sent], Awaitable[Received]],
    request: Sent,
    context: grpc.aio.ServicerContext[Sent, Received],
) -> Received:
    """Run a coroutine function as a unary gRPC method."""
    try:
        return await handler(request)
    except SegueError as error:
        await abort(context, error)
    raise InternalError("unreachable: abort always raises")
