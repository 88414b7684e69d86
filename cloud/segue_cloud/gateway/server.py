"""The gateway's faces: gRPC and WebSocket for devices, gRPC for workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from segue_cloud.cluster.join import JoinHandler
from segue_cloud.cluster.links import NOBODY
from segue_cloud.gateway.gateway import Gateway
from segue_cloud.gateway.websocket import WebSocketServer
from segue_cloud.security.listen import bind, require_exposable
from segue_cloud.security.peers import Peers
from segue_cloud.security.tls import Tls
from segue_cloud.security.tokens import TenantTokens
from segue_cloud.watch.trace_parent import HEADER, TRACE_PARENT
from segue_protocol.grpc_streams import SERVER_OPTIONS, serve_stream, serve_unary
from segue_protocol.stubs.segue.cluster.v1 import worker_pb2_grpc
from segue_protocol.stubs.segue.v1 import split_inference_pb2_grpc
from segue_protocol.wire import private, public

SERVICE = public.DESCRIPTOR.services_by_name["SplitInferenceService"].full_name

PUBLIC_OPTIONS = (
    *SERVER_OPTIONS,
    # One peer's: the streams of a connection, and how long it may take to say hello.
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
)

GenerateContext: TypeAlias = (
    "grpc.aio.ServicerContext[public.GenerateRequest, public.GenerateResponse]"
)
ModelContext: TypeAlias = (
    "grpc.aio.ServicerContext[public.GetModelRequest, public.GetModelResponse]"
)
CancelContext: TypeAlias = (
    "grpc.aio.ServicerContext[public.CancelGenerationRequest, public.CancelGenerationResponse]"
)
GenerationContext: TypeAlias = (
    "grpc.aio.ServicerContext[public.GetGenerationRequest, public.GetGenerationResponse]"
)


class SplitInferenceServicer(split_inference_pb2_grpc.SplitInferenceServiceServicer):
    """`segue.v1.SplitInferenceService` over a Gateway; every call is a tenant's."""

    def __init__(self, gateway: Gateway, tokens: TenantTokens) -> None:
        self._gateway = gateway
        self._tokens = tokens

    def _tenant(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        """Who calls. Raises Unauthenticated."""
        for key, value in context.invocation_metadata() or ():
            if key == "authorization":
                return self._tokens.tenant_of(str(value))
        return self._tokens.tenant_of("")

    async def Generate(
        self, requests: AsyncIterator[public.GenerateRequest], context: GenerateContext
    ) -> None:
        for key, value in context.invocation_metadata() or ():
            if key == HEADER and isinstance(value, str):
                TRACE_PARENT.set(value)
        await serve_stream(
            lambda each: self._gateway.generate(each, tenant=self._tenant(context)),
            requests,
            context,
        )

    async def GetModel(
        self, request: public.GetModelRequest, context: ModelContext
    ) -> public.GetModelResponse:
        return await serve_unary(
            lambda each: self._gateway.get_model(each, tenant=self._tenant(context)),
            request,
            context,
        )

    async def CancelGeneration(
        self, request: public.CancelGenerationRequest, context: CancelContext
    ) -> public.CancelGenerationResponse:
        return await serve_unary(
            lambda each: self._gateway.cancel_generation(each, tenant=self._tenant(context)),
            request,
            context,
        )

    async def GetGeneration(
        self, request: public.GetGenerationRequest, context: GenerationContext
    ) -> public.GetGenerationResponse:
        return await serve_unary(
            lambda each: self._gateway.get_generation(each, tenant=self._tenant(context)),
            request,
            context,
        )


class MembershipServicer(worker_pb2_grpc.MembershipServiceServicer):
    """`segue.cluster.v1.MembershipService`."""

    def __init__(self, handler: JoinHandler, gateway: Gateway) -> None:
        self._handler = handler
        self._gateway = gateway

    async def Join(
        self,
        requests: AsyncIterator[private.JoinRequest],
        context: grpc.aio.ServicerContext[private.JoinRequest, private.JoinResponse],
    ) -> None:
        await serve_stream(self._handler.join, requests, context)

    async def GetCluster(
        self,
        request: private.GetClusterRequest,
        context: grpc.aio.ServicerContext[private.GetClusterRequest, private.ClusterStatus],
    ) -> private.ClusterStatus:
        return await serve_unary(self._gateway.get_cluster, request, context)

    async def Control(
        self,
        request: private.ControlRequest,
        context: grpc.aio.ServicerContext[private.ControlRequest, private.ControlResponse],
    ) -> private.ControlResponse:
        return await serve_unary(self._handler.control, request, context)


@dataclass(slots=True)
class Ports:
    """Where a gateway listens; None: nowhere."""

    public: int
    worker: int
    websocket: int | None
    metrics: int | None = None


class GatewayServer:
    """The listeners of one gateway process.

    Devices meet `tls` and are asked for one of `tokens`, save for health and
    reflection, which tell nothing of anybody; workers are asked for what `peers`
    wants. `origins`: see :class:`WebSocketServer`. `insecure` allows plain text
    to other hosts.
    """

    def __init__(
        self,
        gateway: Gateway,
        join: JoinHandler,
        *,
        origins: Sequence[str] = (),
        tls: Tls | None = None,
        tokens: TenantTokens | None = None,
        peers: Peers = NOBODY,
        insecure: bool = False,
    ) -> None:
        self._gateway = gateway
        self._join = join
        self._tls = tls
        self._peers = peers
        self._insecure = insecure
        tokens = tokens or TenantTokens()
        self._public = grpc.aio.server(options=list(PUBLIC_OPTIONS))
        self._private = grpc.aio.server(
            options=list(SERVER_OPTIONS), interceptors=peers.server_interceptors()
        )
        self._websocket = WebSocketServer(gateway, tokens, origins=origins, tls=tls)
        split_inference_pb2_grpc.add_SplitInferenceServiceServicer_to_server(
            SplitInferenceServicer(gateway, tokens), self._public
        )
        worker_pb2_grpc.add_MembershipServiceServicer_to_server(
            MembershipServicer(join, gateway), self._private
        )
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._public)
        reflection.enable_server_reflection(
            (
                SERVICE,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ),
            self._public,
        )

    async def start(
        self,
        host: str,
        port: int,
        worker_port: int,
        websocket_port: int | None,
        *,
        worker_host: str = "127.0.0.1",
    ) -> Ports:
        """Listen; a port 0 takes a free one, `websocket_port` None does without WebSocket.

        Raises Unavailable naming the address when it cannot be had, InvalidRequest
        on plain text that other hosts could reach.
        """
        require_exposable(host, self._tls, self._insecure, "tls_certificate, tls_key")
        public_port = bind(self._public, host, port, self._tls)
        private_port = self._peers.listen(self._private, worker_host, worker_port)
        if websocket_port is not None:
            websocket_port = await self._websocket.start(host, websocket_port)
        await self._private.start()
        await self._public.start()
        return Ports(public_port, private_port, websocket_port)

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers."""
        state = health_pb2.HealthCheckResponse
        status = state.SERVING if serving else state.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, end every session, close."""
        self._join.close()
        await self._health.enter_graceful_shutdown()
        await self._gateway.aclose()
        await asyncio.gather(
            self._public.stop(grace_s), self._private.stop(grace_s), self._websocket.stop(grace_s)
        )
