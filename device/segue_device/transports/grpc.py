"""The cloud over gRPC (extra ``grpc``)."""

from __future__ import annotations

import grpc
import grpc.aio

from segue_device.transports.addresses import is_loopback
from segue_device.transports.base import CloudStream
from segue_protocol.errors import InvalidRequest
from segue_protocol.grpc_streams import CHANNEL_OPTIONS, GrpcStream, from_rpc_error
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from segue_protocol.wire import public


class GrpcTransport:
    """One channel to `address` (``host:port``).

    Plain text is spoken with loopback only, elsewhere TLS; `insecure` allows
    plain text anywhere and is meant for a network that encrypts by itself.
    """

    def __init__(self, address: str, *, insecure: bool = False) -> None:
        host = address.rpartition(":")[0]
        if not host:
            raise InvalidRequest(f"cloud address {address!r}, expected host:port")
        options = list(CHANNEL_OPTIONS)
        if insecure or is_loopback(host):
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.aio.secure_channel(address, credentials, options=options)
        self._stub = SplitInferenceServiceStub(self._channel)

    async def open(self) -> CloudStream:
        return GrpcStream(self._stub.Generate())

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        try:
            response: public.GetModelResponse = await self._stub.GetModel(request, timeout=10.0)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return response

    async def aclose(self) -> None:
        await self._channel.close()
