"""The gateway's faces: gRPC and WebSocket for devices, gRPC for workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from segue_cloud.cluster.join import JoinHandler
from segue_cloud.gateway.gateway import Gateway
from segue_cloud.gateway.websocket import WebSocketServer
from segue_cloud.watch.trace_parent import HEADER, TRACE_PARENT
from segue_protocol.errors import Unavailable
from segue_protocol.grpc_streams import SERVER_OPTIONS, serve_stream, serve_unary
from segue_protocol.stubs.segue.cluster.v1 import worker_pb2_grpc
from segue_protocol.stubs.segue.v1 import split_inference_pb2_grpc
from segue_protocol.wire import private, public

SERVICE = public.DESCRIPTOR.services_by_name["SplitInferenceService"].full_name

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
    """`segue.v1.SplitInferenceService` over a Gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def Generate(
        self, requests: AsyncIterator[public.GenerateRequest], context: GenerateContext
    ) -> None:
        for key, value in context.invocation_metadata() or ():
            if key == HEADER and isinstance(value, str):
                TRACE_PARENT.set(value)
        await serve_stream(self._gateway.generate, requests, context)

    async def GetModel(
        self, request: public.GetModelRequest, context: ModelContext
    ) -> public.GetModelResponse:
        return await serve_unary(self._gateway.get_model, request, context)

    async def CancelGeneration(
        self, request: public.CancelGenerationRequest, context: CancelContext
    ) -> public.CancelGenerationResponse:
        return await serve_unary(self._gateway.cancel_generation, request, context)

    async def GetGeneration(
        self, request: public.GetGenerationRequest, context: GenerationContext
    ) -> public.GetGenerationResponse:
        return await serve_unary(self._gateway.get_generation, request, context)


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
    """The listeners of one gateway process. `origins`: see :class:`WebSocketServer`."""

    def __init__(self, gateway: Gateway, join: JoinHandler, *, origins: Sequence[str] = ()) -> None:
        self._gateway = gateway
        self._join = join
        self._public = grpc.aio.server(options=list(SERVER_OPTIONS))
        self._private = grpc.aio.server(options=list(SERVER_OPTIONS))
        self._websocket = WebSocketServer(gateway, origins=origins)
        split_inference_pb2_grpc.add_SplitInferenceServiceServicer_to_server(
            SplitInferenceServicer(gateway), self._public
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
        self, host: str, port: int, worker_port: int, websocket_port: int | None
    ) -> Ports:
        """Listen; a port 0 takes a free one, `websocket_port` None does without WebSocket.

        Raises Unavailable naming the address when it cannot be had.
        """
        public_port = _bind(self._public, host, port)
        private_port = _bind(self._private, "127.0.0.1", worker_port)
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


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error}; is another server running there?",
            reason="ADDRESS_IN_USE",
        ) from error
