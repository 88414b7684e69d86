"""One answer over HTTP: whole, or as server-sent events."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from segue_device.client import AsyncClient
from segue_device.openai_form.client import open_chunks, whole_answer
from segue_device.openai_form.forms import Form
from segue_device.server.errors import HttpError, server_failed
from segue_device.server.turns import Turns
from segue_protocol.errors import ContextTooLong, SegueError

# A client that takes nothing for so long is gone; others wait for its turn.
SEND_LIMIT_S = 30.0

_EVENT_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

logger = logging.getLogger(__name__)


class AnswerResponse(Response):
    """Waits for its turn, makes the answer and sends it.

    A client that leaves, while it waits or is answered, ends both. The response
    begins with the first token, so that an error before it has a status; a later
    one is sent as an event.
    """

    def __init__(
        self, client: AsyncClient, turns: Turns, form: Form[Any, Any], *, prompt_param: str
    ) -> None:
        """`prompt_param` names the field that makes a request too long."""
        self._client = client
        self._turns = turns
        self._form = form
        self._prompt_param = prompt_param
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        make = self._events if self._form.request.stream else self._whole

        async def work() -> None:
            try:
                await make(scope, receive, send)
            except SegueError as error:
                await self._fail(error, scope, receive, send)
            except TimeoutError:
                logger.warning("a client took nothing for %s s; its answer was ended", SEND_LIMIT_S)
            except Exception:
                logger.exception("an answer failed")
                await self._fail(server_failed(), scope, receive, send)

        await while_connected(receive, work)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turns.turn():
            whole = await whole_answer(self._client, self._form)
        await JSONResponse(whole.to_dict())(scope, receive, send)

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turns.turn():
            stream = await open_chunks(self._client, self._form)
            async with stream:
                async for chunk in stream:
                    await self._send_event(send, chunk.to_json())
        await self._send_event(send, "[DONE]")
        await self._end_events(send)

    async def _fail(self, error: SegueError, scope: Scope, receive: Receive, send: Send) -> None:
        param = self._prompt_param if isinstance(error, ContextTooLong) else None
        http_error = HttpError.of(error, param=param)
        if not self._started:
            await http_error.response()(scope, receive, send)
            return
        with suppress(TimeoutError):
            await self._send_event(send, json.dumps(http_error.body))
            await self._end_events(send)

    async def _send_event(self, send: Send, data: str) -> None:
        with anyio.fail_after(SEND_LIMIT_S):
            if not self._started:
                self._started = True
                await send(
                    {"type": "http.response.start", "status": 200, "headers": _EVENT_HEADERS}
                )
            body = f"data: {data}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _end_events(self, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def while_connected(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Await `work`, and cancel it when the client goes. The request must have been read."""
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        await work()
        tasks.cancel_scope.cancel()
