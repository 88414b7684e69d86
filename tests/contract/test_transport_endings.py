"""The contract of every transport: how streams end, and what outlives them."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from segue_cloud.gateway.gateway import GatewayLimits
from segue_device import FinishReason, Mode, Token
from segue_protocol.errors import Unavailable
from segue_protocol.grpc_streams import from_rpc_error
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from segue_protocol.wire import public
from tests.byte_proxy import Proxy
from tests.contract.transports import (
    PROFILE,
    PROMPT,
    SAMPLING,
    answer_of,
    error_of,
    every_kind,
    ids_of,
    read_until,
    rig,
    run,
    until,
)
from tests.harness import reference_client


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
            assert (await error_of(stream)).code == "UNAVAILABLE"
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


def test_an_internal_error_of_grpc_itself_is_a_broken_stream() -> None:
    """The gateway's own carries details (see test_an_error_arrives_as_it_was_raised)."""
    metadata = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, metadata, metadata, "Internal error from Core"
    )
    assert isinstance(from_rpc_error(error), Unavailable)


@every_kind
def test_the_newest_stream_wins(kind: str) -> None:
    async def main() -> None:
        async with rig(kind, step_s=0.005) as each:
            older = await each.opened_stream()
            responses = await read_until(older, "tokens")
            newer = await each.resumed(responses[0].started, 0)
            error = await error_of(older)
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
                whole = await answer_of(client, Mode.ONLY_ON_DEVICE)
                stream = await each.opened_stream()
                await read_until(stream, "tokens")
                split = asyncio.create_task(answer_of(client, Mode.SPLIT, 40))
                await until(lambda: _decoding(each.cloud.gateway.sessions) == 2)
                await each.stop()
                error = await error_of(stream)
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
