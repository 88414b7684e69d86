"""``GET /metrics`` on a port of its own, answered on the event loop.

In the loop, because the gauges read the gateway's state; on the WebSocket
library, because it is here already and answers plain GETs as well.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from segue_cloud.gateway.http import quiet_logger
from segue_protocol.errors import Unavailable

PATH = "/metrics"


class MetricsServer:
    """One listener over one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._server: Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes a free one. Returns the port.

        Raises Unavailable naming the address when it cannot be had.
        """
        try:
            self._server = await serve(
                _never, host, port, process_request=self._answer, logger=quiet_logger(__name__)
            )
        except OSError as error:
            raise Unavailable(
                f"cannot listen for metrics on {host}:{port}: {error}; choose another "
                "metrics_port, 0 for any free one, -1 for none",
                reason="ADDRESS_IN_USE",
            ) from error
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Close. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()

    def _answer(self, connection: ServerConnection, request: Request) -> Response:
        path = urlsplit(request.path).path
        if path != PATH:
            return connection.respond(
                HTTPStatus.NOT_FOUND, f"nothing at {path!r}; expected {PATH}\n"
            )
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        response = connection.respond(HTTPStatus.OK, encode(self._registry).decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = content_type
        return response


async def _never(connection: ServerConnection) -> None:
    """No WebSocket is opened here: every request has had its answer."""
