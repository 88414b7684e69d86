"""One cloud behind every transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from segue_cloud.cluster.join import JoinHandler
from segue_cloud.cluster.links import GrpcLink
from segue_cloud.gateway.gateway import GatewayLimits
from segue_cloud.gateway.server import GatewayServer, Ports
from segue_cloud.security.rates import RequestRates
from segue_cloud.security.tls import Tls
from segue_cloud.security.tokens import TenantTokens
from segue_cloud.watch.base import Watch
from segue_device import AsyncClient, Credentials, DeviceProfile, Mode, Pacing, Result, Sampling
from segue_device.transports import CloudStream, Transport
from segue_device.transports.grpc import GrpcTransport
from segue_device.transports.websocket import WebSocketTransport
from segue_protocol.errors import SegueError
from segue_protocol.reference import STOP_ID
from segue_protocol.version import protocol_version
from segue_protocol.wire import public
from tests.harness import Cloud, reference_cloud

T = TypeVar("T")

WIRED = ("grpc", "websocket", "websocket-json")
KINDS = ("local", *WIRED)
every_wire = pytest.mark.parametrize("kind", WIRED)
every_kind = pytest.mark.parametrize("kind", KINDS)

PROMPT = tuple(b"Tell me how the letter found its way across the sea. ")
SAMPLING = Sampling(temperature=0.8, top_k=50, seed=7, logit_bias={STOP_ID: -100.0})
# Emulated: the cloud has made its part long before the device is ready.
PROFILE = DeviceProfile(0.3, 0.0001, 0.0, 0.001, 0.0)
DEADLINE_S = 30.0
GRACE_S = 0.5


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` within a deadline."""
    return asyncio.run(asyncio.wait_for(main, DEADLINE_S))


async def until(condition: Callable[[], bool]) -> None:
    """Poll; bounded by the deadline of `run`."""
    while not condition():  # noqa: ASYNC110  (what is waited for has no event)
        await asyncio.sleep(0.005)


@dataclass
class Rig:
    """A cloud that listens everywhere; `transport` speaks `kind`."""

    kind: str
    cloud: Cloud
    server: GatewayServer
    ports: Ports
    opened: list[Transport] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port this kind of transport connects to."""
        assert self.ports.websocket is not None
        return self.ports.public if self.kind == "grpc" else self.ports.websocket

    def transport(
        self, port: int | None = None, credentials: Credentials | None = None
    ) -> Transport:
        """A new transport to the cloud, or to a proxy at `port`; over TLS if they ask."""
        port = port or self.port
        scheme = "wss" if credentials is not None and credentials.asks_for_tls else "ws"
        transport: Transport
        if self.kind == "local":
            transport = self.cloud.transport()
        elif self.kind == "grpc":
            transport = GrpcTransport(f"127.0.0.1:{port}", credentials=credentials)
        else:
            as_json = self.kind == "websocket-json"
            transport = WebSocketTransport(
                f"{scheme}://127.0.0.1:{port}", json=as_json, credentials=credentials
            )
        self.opened.append(transport)
        return transport

    def start(self, **changes: Any) -> public.GenerateRequest:
        """A `start` that asks for 40 tokens, all from the cloud."""
        assert self.cloud.membership.identity is not None
        fields: dict[str, Any] = {
            "request_id": "test",
            "protocol": protocol_version(),
            "identity": self.cloud.membership.identity.to_wire(),
            "prompt_token_ids": public.TokenIds(ids=PROMPT),
            "sampling": SAMPLING.to_wire(),
            "limits": public.Limits(max_tokens=40),
            "credit": public.Credit(through=40),
        }
        return public.GenerateRequest(start=public.Start(**{**fields, **changes}))

    async def opened_stream(self, port: int | None = None, **changes: Any) -> CloudStream:
        """A stream on which `start` was sent."""
        stream = await self.transport(port).open()
        await stream.send(self.start(**changes))
        return stream

    async def resumed(self, started: public.Started, next_index: int) -> CloudStream:
        """Another stream that reads the same generation."""
        stream = await self.transport().open()
        resume = public.Resume(
            generation_id=started.generation_id,
            resume_token=started.resume_token,
            next_index=next_index,
        )
        await stream.send(public.GenerateRequest(resume=resume))
        return stream

    async def stop(self) -> None:
        """The cloud's orderly end."""
        await self.server.stop(GRACE_S)


@asynccontextmanager
async def rig(
    kind: str,
    *,
    step_s: float = 0.001,
    limits: GatewayLimits | None = None,
    rates: RequestRates | None = None,
    tls: Tls | None = None,
    tokens: TenantTokens | None = None,
    watch: Watch | None = None,
) -> AsyncIterator[Rig]:
    """A rig; the cloud is checked to be idle at the end."""
    async with reference_cloud(step_s=step_s, limits=limits, rates=rates, watch=watch) as cloud:
        join = JoinHandler(cloud.membership, GrpcLink)
        server = GatewayServer(
            cloud.gateway, join, origins=["https://chat.example"], tls=tls, tokens=tokens
        )
        each = Rig(kind, cloud, server, await server.start("127.0.0.1", 0, 0, 0))
        try:
            yield each
        finally:
            for transport in each.opened:
                await transport.aclose()
            await each.stop()
        # A step that was running when its sequence ended gives pages back at its end.
        await until(lambda: not cloud.decode.pool.used and not cloud.prefill.slots.used)


async def read_until(stream: CloudStream, field_name: str) -> list[public.GenerateResponse]:
    """Responses up to the first of a kind, which is the last."""
    responses = []
    while (response := await stream.receive()) is not None:
        responses.append(response)
        if response.WhichOneof("message") == field_name:
            return responses
    raise AssertionError(f"the stream ended without {field_name}: {responses}")


async def drain(stream: CloudStream) -> None:
    """Read to the end; raises the stream's error."""
    while await stream.receive() is not None:
        pass


async def error_of(stream: CloudStream) -> SegueError:
    """The error a stream ends with."""
    with pytest.raises(SegueError) as raised:
        await drain(stream)
    return raised.value


async def answer_of(
    client: AsyncClient, mode: Mode, credit: int | None = None, sampling: Sampling = SAMPLING
) -> Result:
    """The whole answer to PROMPT, 40 tokens, shown at once."""
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


def ids_of(responses: list[public.GenerateResponse]) -> list[int]:
    """Every token id, checked to be gap-free from the first index on."""
    ids: list[int] = []
    first = None
    for response in responses:
        if response.HasField("tokens"):
            first = response.tokens.index if first is None else first
            assert response.tokens.index == first + len(ids)
            ids += response.tokens.ids
    return ids
