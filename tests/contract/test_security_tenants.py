"""Tenants at the gateway: tokens, what is another's, and how much one may ask."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from segue_cloud.config import TenantConfig
from segue_cloud.gateway import steering
from segue_cloud.gateway.gateway import GatewayLimits
from segue_cloud.security.rates import RequestRates
from segue_cloud.security.tokens import TenantTokens
from segue_device import Credentials
from segue_protocol import frames
from segue_protocol.errors import (
    ContextTooLong,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    SegueError,
    Unauthenticated,
)
from segue_protocol.grpc_streams import from_rpc_error
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from segue_protocol.wire import public
from tests.contract.transports import Rig, error_of, ids_of, read_until, rig, run

RED, BLUE = "red-token-0123456789", "blue-token-0123456789"
both = pytest.mark.parametrize("kind", ["grpc", "websocket"])


@pytest.fixture
def tenants(tmp_path: Path) -> list[TenantConfig]:
    found = []
    for name, token in (("red", RED), ("blue", BLUE)):
        file = tmp_path / f"{name}.tokens"
        file.write_text(f"# {name}\n\n{token}\n")
        file.chmod(0o600)
        found.append(TenantConfig(name=name, token_file=str(file)))
    return found


async def _answer(each: Rig, token: str) -> list[int]:
    stream = await each.transport(credentials=Credentials(token=token)).open()
    await stream.send(each.start())
    return ids_of(await read_until(stream, "finish"))


@both
def test_without_tenants_nobody_is_asked(kind: str) -> None:
    async def main() -> None:
        async with rig(kind) as each:
            assert len(await _answer(each, "")) == 40
            assert len(await _answer(each, RED)) == 40
            assert {session.tenant for session in each.cloud.gateway.sessions} == {""}

    run(main())


@both
def test_a_token_is_asked_for_and_says_who_it_is(kind: str, tenants: list[TenantConfig]) -> None:
    async def main() -> None:
        async with rig(kind, tokens=TenantTokens(tenants)) as each:
            for token, reason in (("", "NO_TOKEN"), ("red-token-012345678X", "UNKNOWN_TOKEN")):
                transport = each.transport(credentials=Credentials(token=token))
                with pytest.raises(Unauthenticated) as raised:
                    await transport.get_model(public.GetModelRequest())
                assert raised.value.reason == reason
                error = await error_of(await transport.open())
                assert isinstance(error, Unauthenticated)
                assert error.reason == reason
                assert "token" in error.message
                assert token == "" or token not in error.message
            assert not each.cloud.gateway.sessions
            assert len(await _answer(each, RED)) == 40
            assert len(await _answer(each, BLUE)) == 40
            shown = Credentials(token=RED)
            assert await each.transport(credentials=shown).get_model(public.GetModelRequest())
            assert [session.tenant for session in each.cloud.gateway.sessions] == ["red", "blue"]

    run(main())


def test_a_page_shows_its_token_as_a_subprotocol(tenants: list[TenantConfig]) -> None:
    async def main() -> None:
        async with rig("websocket-json", tokens=TenantTokens(tenants)) as each:
            url = f"ws://127.0.0.1:{each.port}"
            form = Subprotocol("segue.v1.json")
            shown = Subprotocol(frames.bearer_subprotocol(RED))
            async with connect(
                url + frames.GENERATE_PATH, subprotocols=[form, shown], proxy=None
            ) as page:
                assert page.subprotocol == form, "the token is never chosen"
                await page.send(frames.encode_request(each.start(), frames.Form.JSON))
                assert "started" in json.loads(await page.recv())["response"]
            async with connect(url + frames.GENERATE_PATH, subprotocols=[form], proxy=None) as page:
                assert json.loads(await page.recv())["error"]["code"] == "UNAUTHENTICATED"
                await page.wait_closed()
                assert page.close_code == 4416
            with pytest.raises(InvalidStatus) as refused:
                await connect(url + frames.MODEL_PATH, proxy=None)
            assert refused.value.response.status_code == HTTPStatus.UNAUTHORIZED
            assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"
            with pytest.raises(InvalidStatus) as open_to_all:
                await connect(url + "/healthz", proxy=None)
            assert open_to_all.value.response.status_code == HTTPStatus.OK

    run(main())


def test_every_call_over_grpc_but_health_asks(tenants: list[TenantConfig]) -> None:
    async def main() -> None:
        async with rig("grpc", tokens=TenantTokens(tenants)) as each:
            await each.server.set_serving(True)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{each.port}") as channel:
                stub = SplitInferenceServiceStub(channel)
                for call in (
                    stub.GetModel(public.GetModelRequest()),
                    stub.GetGeneration(public.GetGenerationRequest()),
                    stub.CancelGeneration(public.CancelGenerationRequest()),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as raised:
                        await call
                    assert isinstance(from_rpc_error(raised.value), Unauthenticated)
                health = health_pb2_grpc.HealthStub(channel)
                answer = await health.Check(health_pb2.HealthCheckRequest())
                assert answer.status == health_pb2.HealthCheckResponse.SERVING

    run(main())


@both
def test_what_is_anothers_does_not_exist(kind: str, tenants: list[TenantConfig]) -> None:
    """Resume, read and cancel with the right resume token and the wrong tenant."""

    async def main() -> None:
        async with rig(kind, tokens=TenantTokens(tenants), step_s=0.005) as each:
            red = await each.transport(credentials=Credentials(token=RED)).open()
            await red.send(each.start())
            started = (await read_until(red, "tokens"))[0].started

            async def resumed(token: str, generation_id: str) -> SegueError:
                stream = await each.transport(credentials=Credentials(token=token)).open()
                resume = public.Resume(
                    generation_id=generation_id, resume_token=started.resume_token
                )
                await stream.send(public.GenerateRequest(resume=resume))
                return await error_of(stream)

            foreign = await resumed(BLUE, started.generation_id)
            unknown = await resumed(BLUE, "unknown")
            assert isinstance(foreign, NotFound)
            assert foreign.reason == unknown.reason
            assert foreign.message.replace(started.generation_id, "unknown") == unknown.message

            gateway = each.cloud.gateway
            named = {
                "generation_id": started.generation_id,
                "resume_token": started.resume_token,
            }
            with pytest.raises(NotFound):
                await gateway.get_generation(public.GetGenerationRequest(**named), tenant="blue")
            with pytest.raises(NotFound):
                await gateway.cancel_generation(
                    public.CancelGenerationRequest(**named), tenant="blue"
                )
            assert (
                await gateway.get_generation(public.GetGenerationRequest(**named), tenant="red")
            ).output
            assert len(ids_of(await read_until(red, "finish"))) > 0

    run(main())


def test_tokens_are_replaced_while_serving(
    tenants: list[TenantConfig], caplog: pytest.LogCaptureFixture
) -> None:
    now_s = [0.0]
    tokens = TenantTokens(tenants, now_s=lambda: now_s[0])
    file = Path(tenants[0].token_file)
    file.write_text("the-new-red-token-of-today\n")
    assert tokens.tenant_of(f"Bearer {RED}") == "red", "nothing is looked at before a second"
    now_s[0] = 1.0
    with pytest.raises(Unauthenticated):
        tokens.tenant_of(f"Bearer {RED}")
    assert tokens.tenant_of("bearer the-new-red-token-of-today") == "red"
    assert tokens.tenant_of(f"Bearer {BLUE}") == "blue"
    for now_s[0], broken in ((2.0, "short"), (3.0, ""), (4.0, BLUE)):
        file.write_text(broken)
        assert tokens.tenant_of("Bearer the-new-red-token-of-today") == "red"
    file.unlink()
    now_s[0] = 5.0
    assert tokens.tenant_of("Bearer the-new-red-token-of-today") == "red"
    assert len([r for r in caplog.records if "not read again" in r.message]) == 4
    assert "the-new-red" not in caplog.text


def test_settings_of_tenants_that_cannot_be(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    short = tmp_path / "short"
    short.write_text("0123456789abcdef\n\ntoo-short\n")
    for given, named in (
        ([TenantConfig(name="a")], "no token_file"),
        ([TenantConfig(token_file=str(short))], "name"),
        ([TenantConfig(name="a", token_file=str(tmp_path / "none"))], "none"),
        ([TenantConfig(name="a", token_file=str(empty))], "holds no token"),
        ([TenantConfig(name="a", token_file=str(short))], "line 3"),
    ):
        with pytest.raises(InvalidRequest, match=named):
            TenantTokens(given)
    with pytest.raises(InvalidRequest, match="requests_per_s"):
        RequestRates([TenantConfig(name="a", requests_per_s=-1.0)])


def test_a_file_others_can_read_is_warned_of(
    tenants: list[TenantConfig], caplog: pytest.LogCaptureFixture
) -> None:
    TenantTokens(tenants)
    assert not caplog.records
    Path(tenants[0].token_file).chmod(0o644)
    TenantTokens(tenants)
    assert "chmod 600" in caplog.text


def test_a_tenant_asks_too_often(tenants: list[TenantConfig]) -> None:
    limited = [TenantConfig("red", tenants[0].token_file, requests_per_s=0.01), tenants[1]]

    async def main() -> None:
        async with rig("grpc", tokens=TenantTokens(limited), rates=RequestRates(limited)) as each:
            assert len(await _answer(each, RED)) == 40
            stream = await each.transport(credentials=Credentials(token=RED)).open()
            await stream.send(each.start())
            error = await error_of(stream)
            assert isinstance(error, Overloaded)
            assert error.reason == "RATE_LIMITED"
            assert error.retry_after_s is not None
            assert 0 < error.retry_after_s <= 100
            assert len(await _answer(each, BLUE)) == 40
            assert len(await _answer(each, BLUE)) == 40

    run(main())


@both
def test_a_stream_that_says_nothing_ends(kind: str) -> None:
    async def main() -> None:
        async with rig(kind, limits=GatewayLimits(first_message_s=0.05)) as each:
            stream = await each.transport().open()
            error = await error_of(stream)
            assert isinstance(error, DeadlineExceeded)
            assert error.reason == "FIRST_MESSAGE"

    run(main())


def test_a_flood_of_messages_is_read_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the burst the gateway reads no faster than its rate, so that TCP holds the rest."""
    monkeypatch.setattr(steering, "STEERING_BURST", 8.0)
    monkeypatch.setattr(steering, "STEERING_PER_S", 0.001)
    read = 0

    async def main() -> None:
        async with rig("local") as each:
            last = asyncio.Event()

            async def requests() -> object:
                nonlocal read
                yield each.start(credit=public.Credit(through=2))
                for through in range(2, 200):
                    read += 1
                    yield public.GenerateRequest(credit=public.Credit(through=through % 3))
                last.set()
                await asyncio.Event().wait()

            responses = each.cloud.gateway.generate(requests())  # type: ignore[arg-type]
            while not (await anext(responses)).HasField("tokens"):
                pass
            for _ in range(100):  # as many turns as a reader without a limit needs
                await asyncio.sleep(0)
            assert not last.is_set()
            await responses.aclose()

    run(main())
    assert read == 9


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"request_id": "x" * 257}, InvalidRequest, "request_id"),
        ({"prompt_token_ids": public.TokenIds(ids=[1] * 2100)}, ContextTooLong, "prompt_token_ids"),
        ({"output_prefix": [1] * 2100}, ContextTooLong, "output_prefix"),
        ({"prompt_text": "x" * 600 * 256}, ContextTooLong, "text"),
        (
            {
                "messages": public.ChatMessages(
                    messages=[public.ChatMessage(role="user", content="x")] * 600
                )
            },
            ContextTooLong,
            "messages",
        ),
    ],
    ids=["request id", "prompt ids", "prefix", "text", "messages"],
)
def test_what_is_too_large_to_look_at(
    changes: dict[str, object], error: type[SegueError], named: str
) -> None:
    async def main() -> None:
        async with rig("local") as each:
            stream = await each.opened_stream(**changes)
            found = await error_of(stream)
            assert type(found) is error
            assert named in found.message

    run(main())
