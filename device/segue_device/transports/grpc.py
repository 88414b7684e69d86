"""The cloud over gRPC (extra ``grpc``)."""

from __future__ import annotations

import grpc
import grpc.aio

from segue_device.credentials import Credentials
from segue_device.transports.base import CloudStream
from segue_device.transports.handshakes import explain
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.grpc_streams import CHANNEL_OPTIONS, GrpcStream, from_rpc_error
from segue_protocol.hosts import host_of, is_loopback
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from segue_protocol.wire import public


class GrpcTransport:
    """A channel to `address` (``host:port``).

    Plain text is spoken with loopback only, elsewhere TLS; `insecure` allows
    plain text anywhere and is meant for a network that encrypts by itself.
    `credentials` with files ask for TLS everywhere.
    """

    def __init__(
        self, address: str, *, insecure: bool = False, credentials: Credentials | None = None
    ) -> None:
        host = host_of(address)
        if not host:
            raise InvalidRequest(f"cloud address {address!r}, expected host:port")
        shown = credentials or Credentials()
        self._address = address
        self._tls: grpc.ChannelCredentials | None = None
        if shown.asks_for_tls or not (insecure or is_loopback(host)):
            self._tls = grpc.ssl_channel_credentials(*shown.read_files())
        self._metadata = (("authorization", shown.authorization),) if shown.authorization else None
        self._retired: list[grpc.aio.Channel] = []
        self._connect()

    async def open(self, *, anew: bool = False) -> CloudStream:
        if anew:
            # Other answers may still hear from the old one; keepalive ends it if it is dead.
            self._retired.append(self._channel)
            self._connect()
        return GrpcStream(self._stub.Generate(metadata=self._metadata), self._meaning)

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        try:
            response: public.GetModelResponse = await self._stub.GetModel(
                request, timeout=10.0, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise self._meaning(error) from error
        return response

    async def aclose(self) -> None:
        for channel in (*self._retired, self._channel):
            await channel.close()

    def _meaning(self, error: grpc.aio.AioRpcError) -> SegueError:
        return explain(from_rpc_error(error), tls=self._tls is not None)

    def _connect(self) -> None:
        options = list(CHANNEL_OPTIONS)
        if self._retired:
            # Channels of one process share a connection unless told otherwise.
            options.append(("grpc.use_local_subchannel_pool", 1))
        if self._tls is None:
            # A proxy of the environment would carry loopback and plain text elsewhere.
            options.append(("grpc.enable_http_proxy", 0))
            self._channel = grpc.aio.insecure_channel(self._address, options=options)
        else:
            self._channel = grpc.aio.secure_channel(self._address, self._tls, options=options)
        self._stub = SplitInferenceServiceStub(self._channel)
