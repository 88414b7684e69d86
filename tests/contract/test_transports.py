"""The contract of every transport: the same answers, errors and endings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from segue_cloud.gateway.gateway import GatewayLimits
from segue_device import AsyncClient, FinishReason, Mode, Pacing, Result, Sampling, Token
from segue_device.transports import CloudStream
from segue_protocol import errors
from segue_protocol.errors import InvalidRequest, SegueError, Unavailable
from segue_protocol.streams import MAX_MESSAGE_BYTES
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from segue_protocol.wire import public
from tests.contract.transports import (
    KINDS,
    PROFILE,
    PROMPT,
    SAMPLING,
    WIRED,
    Proxy,
    ids_of,
    read_until,
    rig,
    run,
    until,
)
from tests.harness import reference_client

every_kind = pytest.mark.parametrize("kind", KINDS)
every_wire = pytest.mark.parametrize("kind", WIRED)

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


async def _answer(
    client: AsyncClient, mode: Mode, credit: int | None = None, sampling: Sampling = SAMPLING
) -> Result:
    stream = client.stream(
        prompt_token_ids=PROMPT,
        sampling=sampling,
        max_tokens=40,
        mode=mode,
        credit_through=credit,
        pacing=Pacing.off(),
    )
    async with stream as answer:
        return await answer.final()


async def _error_of(stream: CloudStream) -> SegueError:
    with pytest.raises(SegueError) as raised:
        while await stream.receive() is not None:
            pass
    return raised.value


# ---- answers


@every_kind
@pytest.mark.parametrize("sampling", [Sampling(), SAMPLING], ids=["greedy", "seeded"])
def test_the_same_answer_whoever_makes_it(kind: str, sampling: Sampling) -> None:
    async def main() -> None:
        async with rig(kind) as each, reference_client(each.transport(), profile=PROFILE) as client:
            whole = await _answer(client, Mode.ONLY_ON_DEVICE, sampling=sampling)
            cloud = await _answer(client, Mode.ONLY_IN_CLOUD, sampling=sampling)
            assert (cloud.token_ids, cloud.text) == (whole.token_ids, whole.text)
            for credit in (1, 13):
                split = await _answer(client, Mode.SPLIT, credit, sampling)
                assert split.token_ids == whole.token_ids
                assert split.takeover_index == split.usage.cloud_tokens == credit

    run(main())


@every_wire
def test_one_byte_at_a_time(kind: str) -> None:
    async def main() -> None:
        async with rig(kind) as each, Proxy(each.port, bytewise=True) as proxy:
            async with reference_client(each.transport(proxy.port), profile=PROFILE) as client:
                whole = await _answer(client, Mode.ONLY_ON_DEVICE)
                assert (await _answer(client, Mode.ONLY_IN_CLOUD)).token_ids == whole.token_ids
                assert (await _answer(client, Mode.SPLIT, 20)).token_ids == whole.token_ids

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
        requests: AsyncIterator[public.GenerateRequest],
    ) -> AsyncIterator[public.GenerateResponse]:
        await anext(requests)
        yield public.GenerateResponse(heartbeat=public.Heartbeat(sequence=1))
        raise error

    async def main() -> SegueError:
        async with rig(kind) as each:
            monkeypatch.setattr(each.cloud.gateway, "generate", generate)
            stream = await each.opened_stream()
            assert await stream.receive() is not None
            arrived = await _error_of(stream)
            assert await _error_of(stream) is not None, "and every later call tells it too"
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
            return await _error_of(await each.opened_stream(**changes))

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
            error = await _error_of(stream)
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


# ---- endings


@every_kind
def test_a_dropped_stream_is_no_cancel_and_resume_goes_on(kind: str) -> None:
    async def main() -> None:
        async with rig(kind, step_s=0.005) as each, Proxy(each.port) as proxy:
            whole = ids_of(await read_until(await each.opened_stream(), "finish"))
            stream = await each.opened_stream(proxy.port)
            responses = await read_until(stream, "tokens")
            if kind == "local":
                await stream.aclose()
            else:
                proxy.cut()
            assert (await _error_of(stream)).code == "UNAVAILABLE"
            with pytest.raises(Unavailable):
                await stream.send(public.GenerateRequest(progress=public.Progress()))
            head = ids_of(responses)
            assert len(head) < 40
            other = await each.resumed(responses[0].started, len(head))
            rest = await read_until(other, "finish")
            assert head + ids_of(rest) == whole
            assert rest[-1].finish.reason == public.FINISH_REASON_LENGTH
            assert rest[-1].finish.usage.recomputed_tokens == 0

    run(main())


@every_kind
@pytest.mark.parametrize("how", ["aclose", "cut"])
def test_an_idle_stream_that_ends_is_noticed_at_once(kind: str, how: str) -> None:
    """No heartbeat is due before the test's deadline, and still the lease begins to run."""
    limits = GatewayLimits(heartbeat_s=600.0, unclaimed_s=0.05)

    async def main() -> None:
        async with rig(kind, limits=limits) as each, Proxy(each.port) as proxy:
            stream = await each.opened_stream(proxy.port, credit=public.Credit(through=2))
            while len(ids_of([await stream.receive()])) == 0:
                pass
            await until(lambda: each.cloud.decode.status().parked > 0)
            if how == "cut" and kind != "local":
                proxy.cut()
            else:
                await stream.aclose()
            await until(lambda: not each.cloud.gateway.sessions)

    run(main())


def test_a_half_close_over_grpc_is_no_cancel() -> None:
    async def main() -> None:
        async with rig("grpc", step_s=0.005) as each:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{each.port}") as channel:
                call = SplitInferenceServiceStub(channel).Generate()
                await call.write(each.start())
                await call.done_writing()
                responses = [response async for response in call]
            assert len(ids_of(responses)) == 40
            assert responses[-1].finish.reason == public.FINISH_REASON_LENGTH

    run(main())


@every_kind
def test_the_newest_stream_wins(kind: str) -> None:
    async def main() -> None:
        async with rig(kind, step_s=0.005) as each:
            older = await each.opened_stream()
            responses = await read_until(older, "tokens")
            newer = await each.resumed(responses[0].started, 0)
            error = await _error_of(older)
            assert (error.code, error.reason) == ("ABORTED", "SUPERSEDED")
            assert len(ids_of(await read_until(newer, "finish"))) == 40

    run(main())


@every_kind
def test_cancel_from_the_device(kind: str) -> None:
    async def main() -> None:
        async with rig(kind, step_s=0.005) as each:
            stream = await each.opened_stream()
            responses = await read_until(stream, "tokens")
            await stream.send(public.GenerateRequest(cancel=public.Cancel(reason="test")))
            responses += await read_until(stream, "finish")
            assert responses[-1].finish.reason == public.FINISH_REASON_CANCELLED
            assert len(ids_of(responses)) < 40
            async with reference_client(each.transport(), profile=PROFILE) as client:
                stream = client.stream(
                    prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=40, mode="only_in_cloud"
                )
                async with stream as answer:
                    async for event in answer:
                        if isinstance(event, Token):
                            answer.cancel()
                    assert (await answer.final()).finish_reason is FinishReason.CANCELLED
            await until(lambda: all(session.finished for session in each.cloud.gateway.sessions))
            reasons = [session.finish_reason for session in each.cloud.gateway.sessions]
            assert reasons == [public.FINISH_REASON_CANCELLED] * 2

    run(main())


@every_kind
def test_shutdown_in_mid_answer_and_the_device_takes_over(kind: str) -> None:
    async def main() -> None:
        async with rig(kind, step_s=0.02) as each:
            async with reference_client(each.transport(), profile=PROFILE) as client:
                whole = await _answer(client, Mode.ONLY_ON_DEVICE)
                stream = await each.opened_stream()
                await read_until(stream, "tokens")
                split = asyncio.create_task(_answer(client, Mode.SPLIT, 40))
                await until(lambda: _decoding(each.cloud.gateway.sessions) == 2)
                await each.stop()
                error = await _error_of(stream)
                assert (error.code, error.reason) == ("UNAVAILABLE", "SHUTDOWN")
                result = await split
                assert result.token_ids == whole.token_ids
                assert result.usage.cloud_tokens > 0
                assert result.usage.device_tokens > 0
                with pytest.raises(Unavailable):
                    await (await each.opened_stream()).receive()

    run(main())


def _decoding(sessions: object) -> int:
    return sum(len(session.log) > 0 and not session.finished for session in sessions)
