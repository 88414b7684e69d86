"""What one stream of a device does to its session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio

from segue_cloud.gateway.reader import Reader
from segue_cloud.gateway.session import Session
from segue_cloud.security.rates import TokenBucket
from segue_protocol.errors import DeadlineExceeded, InvalidRequest, SegueError
from segue_protocol.wire import public

# Messages of one stream after its first: many times what a device has to say.
STEERING_PER_S = 200.0
STEERING_BURST = 400.0


async def first_message(
    requests: AsyncIterator[public.GenerateRequest], limit_s: float
) -> public.GenerateRequest:
    """`start` or `resume`. Raises DeadlineExceeded after `limit_s`, InvalidRequest at the end."""
    try:
        with anyio.fail_after(limit_s):
            async for request in requests:
                return request
    except TimeoutError:
        raise DeadlineExceeded(
            f"no first message within {limit_s} s; expected start or resume",
            reason="FIRST_MESSAGE",
        ) from None
    raise InvalidRequest("the stream ended before its first message; expected start or resume")


async def steer(
    requests: AsyncIterator[public.GenerateRequest], session: Session, reader: Reader, credit: int
) -> None:
    """Apply what follows the first message, which allowed `credit`; errors end the reader."""
    try:
        if credit:
            await session.raise_credit(credit)
        clock = asyncio.get_running_loop().time
        pace = TokenBucket(STEERING_PER_S, STEERING_BURST)
        async for request in requests:
            await session.handle(request)
            # Not refused but read no faster: what more is sent waits at the sender.
            while wait_s := pace.take(clock()):  # noqa: ASYNC110  (time is what is waited for)
                await asyncio.sleep(wait_s)
    except SegueError as error:
        reader.interrupt(error)
