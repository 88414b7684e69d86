"""The routes: OpenAI's paths over one client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segue_device.client import AsyncClient
from segue_device.openai_form.answers import Model, ModelList
from segue_device.openai_form.client import vocabulary_of
from segue_device.openai_form.forms import ChatForm, CompletionForm
from segue_device.openai_form.request import Outside, parse_chat, parse_completion
from segue_device.server.answering import AnswerResponse
from segue_device.server.errors import HttpError, server_failed
from segue_device.server.guard import KeyGuard, SiteGuard
from segue_device.server.turns import Turns
from segue_protocol.errors import InvalidRequest, NotFound, SegueError

MAX_BODY_BYTES = 8 * 2**20
# Requests that wait for the engine, and those that a cloud alone answers at once.
MAX_WAITING = 16
MAX_IN_CLOUD = 64


def build_app(
    client: AsyncClient,
    *,
    models: Sequence[str] = (),
    api_key: str | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    max_waiting: int = MAX_WAITING,
    max_body_bytes: int = MAX_BODY_BYTES,
    outside: Outside | None = None,
) -> Starlette:
    """An ASGI application over an open client.

    `models` are the names it answers to, the first one where a request names
    none; by default that of the device's model. Requests must come with a Host
    that is loopback or one of `hosts`, and from web pages of `origins` only.
    `max_waiting` requests wait for their turn, further ones are refused; the
    queue is the application's ``state.turns``.
    """
    names = tuple(models) or (_own_name(client),)
    turns = Turns(running=1 if client.model is not None else MAX_IN_CLOUD, waiting=max_waiting)
    service = _Service(client, names, turns, max_body_bytes, outside or Outside())
    middleware = [Middleware(SiteGuard, hosts=hosts, origins=origins)]
    if origins:
        middleware.append(
            Middleware(
                CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]
            )
        )
    if api_key is not None:
        if not api_key:
            raise InvalidRequest("the API key is empty; expected one, or None to ask for none")
        middleware.append(Middleware(KeyGuard, api_key=api_key))
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/completions", service.completion, methods=["POST"]),
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.model),
            Route("/healthz", service.health),
        ],
        middleware=middleware,
        exception_handlers={
            SegueError: _on_segue_error,
            HTTPException: _on_http_error,
            ClientDisconnect: _on_disconnect,
            Exception: _on_bug,
        },
    )
    app.state.turns = turns
    return app


class _Service:
    """The endpoints."""

    def __init__(
        self,
        client: AsyncClient,
        names: Sequence[str],
        turns: Turns,
        max_body_bytes: int,
        outside: Outside,
    ) -> None:
        self._client = client
        self._models = {name: Model(name, int(outside.now_s())) for name in names}
        self._default = names[0]
        self._vocabulary = vocabulary_of(client)
        self._turns = turns
        self._max_body_bytes = max_body_bytes
        self._outside = outside

    async def chat(self, request: Request) -> Response:
        asked = parse_chat(await self._body(request))
        model = self._named(asked.model).id
        form = ChatForm(asked, self._outside, model=model, vocabulary=self._vocabulary)
        return AnswerResponse(self._client, self._turns, form, prompt_param="messages")

    async def completion(self, request: Request) -> Response:
        asked = parse_completion(await self._body(request))
        model = self._named(asked.model).id
        form = CompletionForm(asked, self._outside, model=model, vocabulary=self._vocabulary)
        return AnswerResponse(self._client, self._turns, form, prompt_param="prompt")

    async def models(self, request: Request) -> Response:
        return JSONResponse(ModelList(tuple(self._models.values())).to_dict())

    async def model(self, request: Request) -> Response:
        return JSONResponse(self._named(request.path_params["name"]).to_dict())

    async def health(self, request: Request) -> Response:
        turns = self._turns
        status = {"status": "ending" if turns.closed else "ok"}
        counts = {"running": turns.running, "waiting": turns.waiting}
        return JSONResponse({**status, **counts}, 503 if turns.closed else 200)

    def _named(self, name: str) -> Model:
        model = self._models.get(name or self._default)
        if model is None:
            raise NotFound(
                f"no model {name!r} here; ask for one of {', '.join(self._models)}",
                reason="MODEL_NOT_FOUND",
                param="model",
            )
        return model

    async def _body(self, request: Request) -> Any:
        """The request's JSON. Raises InvalidRequest where it is too long or no JSON."""
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > self._max_body_bytes:
                raise InvalidRequest(
                    f"the request is longer than {self._max_body_bytes} bytes; shorten it",
                    reason="BODY_TOO_LARGE",
                )
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(
                f"the request is no JSON: {error}; send application/json", reason="NO_JSON"
            ) from error


def _own_name(client: AsyncClient) -> str:
    return client.model.identity.model if client.model is not None else "segue"


async def _on_segue_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SegueError)
    return HttpError.of(error).response()


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return HttpError.plain(error.status_code, message).response()


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _on_bug(request: Request, error: Exception) -> Response:
    return HttpError.of(server_failed()).response()
