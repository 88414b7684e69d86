"""How a gateway and its workers know each other, on every private link and both ways.

With TLS both ends show a certificate of the cluster's own authority. Without
it, on loopback, every call carries the cluster's token as metadata, so that
other users of the host can neither join nor send prompts to a worker.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import grpc.aio

from segue_cloud.config import ControlConfig, ServeConfig, WorkerConfig
from segue_cloud.security import cluster_token
from segue_cloud.security.listen import bind, require_exposable
from segue_cloud.security.tls import WORKER_SETTINGS, Tls
from segue_protocol.errors import InvalidRequest, Unauthenticated
from segue_protocol.grpc_streams import CHANNEL_OPTIONS, abort
from segue_protocol.hosts import host_of, is_loopback

AnyHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

TOKEN_KEY = "segue-cluster-token"


@dataclass(frozen=True, slots=True)
class Peers:
    """One process's proof of membership, and what it asks of others.

    Without `tls` and `token` it serves nobody. `tls_name` is the name that
    certificates of the cluster carry, where they do not carry their host's.
    `insecure` allows plain text to other hosts.
    """

    token: str = field(default="", repr=False)
    tls: Tls | None = None
    tls_name: str = ""
    insecure: bool = False

    @classmethod
    def of(cls, config: ServeConfig | WorkerConfig | ControlConfig, token: str) -> Peers:
        """From the settings that both kinds of process share. Raises InvalidRequest."""
        tls = Tls.load(
            config.worker_tls_certificate,
            config.worker_tls_key,
            config.worker_tls_ca,
            WORKER_SETTINGS,
        )
        if tls is not None and not tls.ca:
            raise InvalidRequest(
                "worker_tls_ca is missing; gateway and workers know each other by certificates "
                "of one authority"
            )
        return cls(token, tls, config.worker_tls_name, config.insecure)

    def server_interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """For the server that :meth:`listen` is called with."""
        return [] if self.tls is not None else [_TokenGuard(self.token)]

    def listen(self, server: grpc.aio.Server, host: str, port: int) -> int:
        """Listen for peers; returns the port.

        Raises InvalidRequest where plain text could be reached from elsewhere,
        Unavailable when the address cannot be had.
        """
        require_exposable(host, self.tls, self.insecure, "worker_tls_*")
        return bind(server, host, port, self.tls)

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel to a peer; streams on it are opened with `metadata`, other calls have it.

        Raises InvalidRequest for plain text to another host.
        """
        options: list[tuple[str, Any]] = list(CHANNEL_OPTIONS)
        # A proxy of the environment is not for links inside a cluster.
        options.append(("grpc.enable_http_proxy", 0))
        if self.tls is not None:
            if self.tls_name:
                options.append(("grpc.ssl_target_name_override", self.tls_name))
            credentials = self.tls.channel_credentials()
            return grpc.aio.secure_channel(address, credentials, options=options)
        if not (self.insecure or is_loopback(host_of(address))):
            raise InvalidRequest(
                f"{address} is not loopback and this cluster speaks plain text; give gateway and "
                "workers worker_tls_* files, or say --insecure on a network that encrypts by itself"
            )
        return grpc.aio.insecure_channel(
            address, options=options, interceptors=[_TokenBearer(self.metadata)]
        )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call to a peer carries."""
        return ((TOKEN_KEY, self.token),) if self.tls is None and self.token else ()


def peers_of_worker(config: WorkerConfig | ControlConfig) -> Peers:
    """A worker's, or a command's that calls a gateway's worker port.

    A worker may be there before its gateway. Raises InvalidRequest or Unauthenticated.
    """
    peers = Peers.of(config, "")
    if peers.tls is not None:
        return peers
    host, _, port = config.gateway.rpartition(":")
    waits = isinstance(config, WorkerConfig) and not config.cluster_token_file
    if waits and is_loopback(host):
        return Peers.of(config, cluster_token.ensure(int(port)))
    return Peers.of(config, cluster_token.find(config.gateway, config.cluster_token_file))


class _TokenBearer(grpc.aio.UnaryUnaryClientInterceptor):
    """Not for streams: gRPC puts a queue and a task before one that is intercepted."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    async def intercept_unary_unary(
        self,
        continuation: Callable[..., Awaitable[Any]],
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *self._metadata)
        with_token = grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        return await continuation(with_token, request)


class _TokenGuard(grpc.aio.ServerInterceptor):
    """Refuses every call that does not carry the token; an empty one admits nobody."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[AnyHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> AnyHandler | None:
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method
            return handler
        shown = next(
            (value for key, value in handler_call_details.invocation_metadata if key == TOKEN_KEY),
            "",
        )
        text = shown if isinstance(shown, str) else ""
        if self._token and hmac.compare_digest(text.encode(), self._token):
            return handler
        return _REFUSALS[handler.request_streaming, handler.response_streaming](_refuse)


async def _refuse(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await abort(
        context,
        Unauthenticated(
            "this call carries no token of this cluster; give both sides the same "
            "cluster_token_file, or run both as one user on one host",
            reason="WRONG_CLUSTER_TOKEN",
        ),
    )


_REFUSALS: dict[tuple[bool, bool], Callable[..., AnyHandler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
