"""Plain HTTP on the WebSocket port: health, the model, and clear refusals.

``GET /healthz`` is 200 once workers have joined, else 503;
``GET /segue/v1/model?model=NAME`` is `GetModel` in JSON and asks for a token as
that does, health asks nobody; an error's body is a `StreamError` in JSON.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request, Response

from segue_cloud.gateway.gateway import Gateway
from segue_cloud.security.tokens import SCHEME, TenantTokens
from segue_protocol import frames
from segue_protocol.errors import NotFound, SegueError, Unauthenticated, Unavailable
from segue_protocol.wire import public

HEALTH_PATH = "/healthz"

_STATUS = {
    NotFound.code: HTTPStatus.NOT_FOUND,
    Unauthenticated.code: HTTPStatus.UNAUTHORIZED,
    Unavailable.code: HTTPStatus.SERVICE_UNAVAILABLE,
}


class PlainAnswers:
    """The `process_request` hook: an answer, or None where a WebSocket may open."""

    def __init__(self, gateway: Gateway, tokens: TenantTokens) -> None:
        self._gateway = gateway
        self._tokens = tokens

    async def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        url = urlsplit(request.path)
        if url.path == frames.GENERATE_PATH:
            return None
        try:
            if url.path == HEALTH_PATH:
                return self._health(connection)
            if url.path == frames.MODEL_PATH:
                return await self._model(connection, request, parse_qs(url.query))
            raise NotFound(
                f"nothing at {url.path!r}; expected {frames.GENERATE_PATH} (WebSocket), "
                f"{frames.MODEL_PATH} or {HEALTH_PATH}",
                reason="UNKNOWN_PATH",
            )
        except SegueError as error:
            status = _STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
            response = _json(connection, status, frames.to_json(frames.to_wire(error)))
            if status is HTTPStatus.UNAUTHORIZED:
                response.headers["WWW-Authenticate"] = SCHEME
            return response

    def _health(self, connection: ServerConnection) -> Response:
        if self._gateway.membership.ready:
            return connection.respond(HTTPStatus.OK, "serving\n")
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "no workers yet\n")

    async def _model(
        self, connection: ServerConnection, request: Request, query: dict[str, list[str]]
    ) -> Response:
        tenant = self._tokens.tenant_of(authorization_of(request))
        wanted = public.GetModelRequest(model=query.get("model", [""])[0])
        response = await self._gateway.get_model(wanted, tenant=tenant)
        return _json(connection, HTTPStatus.OK, frames.to_json(response))


def authorization_of(request: Request | None) -> str:
    """The ``Authorization`` of a handshake: its header, or for browsers its subprotocol."""
    if request is None:
        return ""
    header = ", ".join(request.headers.get_all("Authorization"))
    offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol")).split(",")
    token = frames.token_of([each.strip() for each in offered])
    return header or (f"{SCHEME} {token}" if token else "")


def _json(connection: ServerConnection, status: HTTPStatus, body: str) -> Response:
    response = connection.respond(status, body)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    return response


def quiet_logger(name: str) -> logging.Logger:
    """The library's errors only: no probes and port scans, and never what a frame holds."""
    logger = logging.getLogger(name).getChild("listener")
    logger.setLevel(logging.WARNING)
    logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, InvalidHandshake)
