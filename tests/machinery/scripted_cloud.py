"""A cloud that says what a test tells it to, message by message."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from segue_device.transports.local import LocalTransport
from segue_protocol.wire import public

Script = Callable[
    [AsyncIterator[public.GenerateRequest]], AsyncGenerator[public.GenerateResponse, None]
]


def scripted(script: Script) -> LocalTransport:
    """A transport to `script`, which gets the device's messages and yields the cloud's."""

    async def get_model(request: public.GetModelRequest) -> public.GetModelResponse:
        raise AssertionError("nobody asks a scripted cloud for its model")

    return LocalTransport(script, get_model)


def started(credit: int, pace_s: float = 0.05) -> public.GenerateResponse:
    """The cloud has taken the request and advises `credit` tokens."""
    advice = public.Advice(cloud_tokens=credit, pace_s=pace_s)
    return public.GenerateResponse(
        started=public.Started(
            generation_id="scripted", resume_token=b"t" * 16, advice=advice, credit_through=credit
        )
    )


def tokens(index: int, ids: Sequence[int]) -> public.GenerateResponse:
    """Tokens of the log from `index` on."""
    return public.GenerateResponse(tokens=public.Tokens(index=index, ids=ids))
