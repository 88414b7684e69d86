"""The demo's routes: the page, and what it asks for. For pages of this computer only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from demos.chat.browser_device import BrowserDevice
from demos.chat.conversations import WAYS, Conversations
from demos.chat.headers import PageHeaders
from demos.chat.network import EmulatedNetwork
from demos.chat.recorded import RecordedAnswer
from demos.chat.settings import DEVICES, MAX_ANSWER_TOKENS, MAX_RTT_MS, Settings
from demos.split.runs import Prompt
from segue_device.server.errors import HttpError
from segue_device.server.guard import SiteGuard
from segue_protocol.errors import InvalidRequest, SegueError

STATIC = Path(__file__).parent / "static"
MAX_BODY_BYTES = 256 * 1024


def build_app(
    conversations: Conversations,
    network: EmulatedNetwork,
    prompts: Sequence[Prompt],
    browser: BrowserDevice,
) -> Starlette:
    """An ASGI application; `prompts` are offered on the page, which can be a device itself."""
    api = _Api(conversations, network, prompts, browser)
    can_be_device = browser.why_not() is None
    return Starlette(
        routes=[
            Route("/api/setup", api.setup),
            Route("/api/conversations", api.begin, methods=["POST"]),
            Route("/api/conversations/{name}", api.turns),
            Route("/api/conversations/{name}/turns", api.ask, methods=["POST"]),
            Route("/api/comparisons", api.compare, methods=["POST"]),
            Route("/api/answers/{name}/events", api.events),
            Route("/api/answers/{name}/stop", api.stop, methods=["POST"]),
            Route("/api/network", api.set_network, methods=["POST"]),
            *(browser.routes() if can_be_device else ()),
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ],
        middleware=[
            Middleware(PageHeaders, policy=browser.policy if can_be_device else {}),
            Middleware(SiteGuard, hosts=(), origins=()),
        ],
        exception_handlers={SegueError: _on_segue_error},
    )


class _Api:
    """The endpoints. JSON in, JSON out; events one a line."""

    def __init__(
        self,
        conversations: Conversations,
        network: EmulatedNetwork,
        prompts: Sequence[Prompt],
        browser: BrowserDevice,
    ) -> None:
        self._conversations = conversations
        self._network = network
        self._prompts = prompts
        self._browser = browser

    async def setup(self, request: Request) -> Response:
        """What the page's controls offer."""
        return JSONResponse(
            {
                "devices": [each.as_json() for each in DEVICES.values()],
                "ways": [mode.value for mode in WAYS],
                "defaults": Settings().as_json(),
                "maxRttMs": MAX_RTT_MS,
                "maxAnswerTokens": MAX_ANSWER_TOKENS,
                "prompts": [
                    {
                        "name": each.name,
                        "text": each.messages[-1]["content"],
                        "seed": each.sampling.seed,
                    }
                    for each in self._prompts
                ],
                "browser": {"cloud": self._browser.cloud, "whyNot": self._browser.why_not()},
                "networkCut": self._network.is_cut,
            }
        )

    async def begin(self, request: Request) -> Response:
        await _fields(request)
        return JSONResponse({"conversation": self._conversations.begin()})

    async def turns(self, request: Request) -> Response:
        return JSONResponse({"turns": self._conversations.turns(request.path_params["name"])})

    async def ask(self, request: Request) -> Response:
        asked = await _fields(request, "text", "settings")
        settings = Settings.parse(asked["settings"])
        name = request.path_params["name"]
        answer = await self._conversations.ask(name, _text(asked["text"]), settings)
        return JSONResponse({"answer": answer})

    async def compare(self, request: Request) -> Response:
        asked = await _fields(request, "text", "settings")
        settings = Settings.parse(asked["settings"])
        answers = await self._conversations.compare(_text(asked["text"]), settings)
        return JSONResponse({"answers": answers})

    async def events(self, request: Request) -> Response:
        try:
            start = max(0, int(request.query_params.get("from", "0")))
        except ValueError:
            raise InvalidRequest("`from` is no number", param="from") from None
        answer = self._conversations.answer(request.path_params["name"])
        return StreamingResponse(_lines(answer, start), media_type="application/x-ndjson")

    async def stop(self, request: Request) -> Response:
        await _fields(request)
        self._conversations.answer(request.path_params["name"]).stop()
        return JSONResponse({})

    async def set_network(self, request: Request) -> Response:
        """Cut or mend it, for every answer of this server."""
        cut = (await _fields(request, "cut"))["cut"]
        if cut is True:
            await self._network.cut()
        elif cut is False:
            self._network.mend()
        else:
            raise InvalidRequest(f"cut is {cut!r}, expected true or false", param="cut")
        return JSONResponse({"networkCut": self._network.is_cut})


async def _fields(request: Request, *names: str) -> Mapping[str, Any]:
    """The body's fields, exactly `names`. No form of another site can send this type."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise InvalidRequest("the request is no JSON; send application/json", reason="NO_JSON")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise InvalidRequest(
                f"the request is longer than {MAX_BODY_BYTES} bytes; shorten it",
                reason="BODY_TOO_LARGE",
            )
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request is no JSON: {error}", reason="NO_JSON") from error
    if not isinstance(found, dict) or set(found) != set(names):
        raise InvalidRequest(f"the request needs exactly the fields {', '.join(names) or 'none'}")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequest("text is no string", param="text")
    return value


async def _lines(answer: RecordedAnswer, start: int) -> AsyncIterator[bytes]:
    async for event in answer.read(start):
        yield json.dumps(event, allow_nan=False).encode() + b"\n"


async def _on_segue_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SegueError)
    return HttpError.of(error).response()
