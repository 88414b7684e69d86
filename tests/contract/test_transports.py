"""The contract of every transport: the same answers and the same errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from segue_device import Mode, Sampling
from segue_protocol import errors
from segue_protocol.errors import InvalidRequest, SegueError, Unavailable
from segue_protocol.streams import MAX_MESSAGE_BYTES
from segue_protocol.wire import public
from tests.byte_proxy import Proxy
from tests.contract.transports import (
    PROFILE,
    SAMPLING,
    answer_of,
    error_of,
    every_kind,
    every_wire,
    ids_of,
    read_until,
    rig,
    run,
)
from tests.harness import reference_client

MODEL_ERRORS: list[SegueError] = [
    kind(f"{kind.__name__} — ein Grund, ‘quoted’", retry_after_s=0.25 if kind.retryable else None)
    for kind in (
        errors.InvalidRequest,
        errors.OutOfRange,
        errors.ContextTooLong,
        errors.IdentityMismatch,
        errors.Unsupported,
        errors.NotFound,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.Aborted,
        errors.Overloaded,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.TransferError,
        errors.InternalError,
        errors.ProtocolError,
    )
]


# ---- answers


@every_kind
@pytest.mark.parametrize("sampling", [Sampling(), SAMPLING], ids=["greedy", "seeded"])
def test_the_same_answer_whoever_makes_it(kind: str, sampling: Sampling) -> None:
    async def main() -> None:
        async with rig(kind) as each, reference_client(each.transport(), profile=PROFILE) as client:
            whole = await answer_of(client, Mode.ONLY_ON_DEVICE, sampling=sampling)
            cloud = await answer_of(client, Mode.ONLY_IN_CLOUD, sampling=sampling)
            assert (cloud.token_ids, cloud.text) == (whole.token_ids, whole.text)
            for credit in (1, 13):
                split = await answer_of(client, Mode.SPLIT, credit, sampling)
                assert split.token_ids == whole.token_ids
                assert split.takeover_index == split.usage.cloud_tokens == credit

    run(main())


@every_wire
def test_one_byte_at_a_time(kind: str) -> None:
    async def main() -> None:
        async with rig(kind) as each, Proxy(each.port, pieces=(1,)) as proxy:
            async with reference_client(each.transport(proxy.port), profile=PROFILE) as client:
                whole = await answer_of(client, Mode.ONLY_ON_DEVICE)
                assert (await answer_of(client, Mode.ONLY_IN_CLOUD)).token_ids == whole.token_ids
                assert (await answer_of(client, Mode.SPLIT, 20)).token_ids == whole.token_ids

    run(main())


@every_kind
def test_several_answers_at_once(kind: str) -> None:
    async def main() -> None:
        async with rig(kind) as each:
            transport = each.transport()

            async def one() -> list[int]:
                stream = await transport.open()
                await stream.send(each.start())
                return ids_of(await read_until(stream, "finish"))

            first, *others = await asyncio.gather(*(one() for _ in range(5)))
            assert len(first) == 40
            assert all(other == first for other in others)

    run(main())


@every_kind
def test_tokens_that_wait_come_in_one_message(kind: str) -> None:
    async def main() -> None:
        async with rig(kind) as each:
            stream = await each.opened_stream()
            responses = await read_until(stream, "finish")
            assert await stream.receive() is None, "an orderly end"
            assert await stream.receive() is None, "and again"
            started = responses[0].started
            again = await read_until(await each.resumed(started, 3), "finish")
            assert [each.WhichOneof("message") for each in again] == ["started", "tokens", "finish"]
            assert again[1].tokens.index == 3
            assert list(again[1].tokens.ids) == ids_of(responses)[3:]
            assert again[0].started == started
            assert again[2] == responses[-1]

    run(main())


@every_kind
def test_the_model(kind: str) -> None:
    async def main() -> None:
        async with rig(kind) as each:
            transport = each.transport()
            model = await transport.get_model(public.GetModelRequest())
            assert model == await each.cloud.gateway.get_model(public.GetModelRequest())
            assert await transport.get_model(public.GetModelRequest(model=model.identity.model))
            with pytest.raises(errors.NotFound, match="a b&c=ü") as refused:
                await transport.get_model(public.GetModelRequest(model="a b&c=ü"))
            assert refused.value.reason == "UNKNOWN_MODEL"

    run(main())


# ---- errors


@every_kind
@pytest.mark.parametrize("error", MODEL_ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was_raised(
    kind: str, error: SegueError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def generate(
        requests: AsyncIterator[public.GenerateRequest], *, tenant: str = ""
    ) -> AsyncIterator[public.GenerateResponse]:
        await anext(requests)
        yield public.GenerateResponse(heartbeat=public.Heartbeat(sequence=1))
        raise error

    async def main() -> SegueError:
        async with rig(kind) as each:
            monkeypatch.setattr(each.cloud.gateway, "generate", generate)
            stream = await each.opened_stream()
            assert await stream.receive() is not None
            arrived = await error_of(stream)
            assert await error_of(stream) is not None, "and every later call tells it too"
            return arrived

    arrived = run(main())
    assert type(arrived) is type(error)
    assert (arrived.code, arrived.reason) == (error.code, error.reason)
    assert (arrived.message, arrived.retry_after_s) == (error.message, error.retry_after_s)


WRONG = {
    "no tokens wanted": ({"limits": public.Limits()}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    "unknown model": ({"model": "gpt-17"}, "NOT_FOUND", "UNKNOWN_MODEL"),
    "over the context": (
        {"prompt_token_ids": public.TokenIds(ids=[65] * 600)}, "OUT_OF_RANGE", "CONTEXT_TOO_LONG",
    ),
    "another protocol": (
        {"protocol": public.ProtocolVersion(major=9)}, "UNIMPLEMENTED", "PROTOCOL_VERSION",
    ),
}  # fmt: skip


@every_kind
@pytest.mark.parametrize("name", WRONG)
def test_a_bad_start_is_refused(kind: str, name: str) -> None:
    changes, code, reason = WRONG[name]

    async def main() -> SegueError:
        async with rig(kind) as each:
            return await error_of(await each.opened_stream(**changes))

    error = run(main())
    assert (error.code, error.reason) == (code, reason)


@every_kind
def test_a_bad_message_in_mid_answer_ends_the_stream(kind: str) -> None:
    async def main() -> None:
        async with rig(kind, step_s=0.01) as each:
            stream = await each.opened_stream()
            responses = await read_until(stream, "tokens")
            takeover = public.Takeover(index=39)
            await stream.send(public.GenerateRequest(takeover=takeover))
            error = await error_of(stream)
            assert (error.code, error.reason) == ("OUT_OF_RANGE", "OUT_OF_RANGE")
            again = await read_until(await each.resumed(responses[0].started, 0), "finish")
            assert len(ids_of(again)) == 40

    run(main())


@every_wire
def test_a_message_too_large_is_refused_before_it_is_sent(kind: str) -> None:
    async def main() -> None:
        async with rig(kind) as each:
            stream = await each.transport().open()
            with pytest.raises(InvalidRequest, match=str(MAX_MESSAGE_BYTES)) as refused:
                await stream.send(each.start(prompt_text="a" * (MAX_MESSAGE_BYTES + 1)))
            assert refused.value.reason == "MESSAGE_TOO_LARGE"
            await stream.send(each.start())  # the stream is as good as before
            assert len(ids_of(await read_until(stream, "finish"))) == 40

    run(main())


@every_wire
def test_nobody_there(kind: str) -> None:
    async def main() -> None:
        async with rig(kind) as each:
            async with Proxy(each.port) as proxy:
                closed_port = proxy.port
            with pytest.raises(Unavailable):
                await (await each.opened_stream(closed_port)).receive()
            with pytest.raises(Unavailable):
                await each.transport(closed_port).get_model(public.GetModelRequest())

    run(main())
