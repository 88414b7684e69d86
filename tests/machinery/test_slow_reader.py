"""A client that asks and does not read must not keep the engine from the others."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Message, Scope

from segue_device.server import build_app
from segue_device.server.answering import SEND_LIMIT_S
from tests.harness import reference_device
from tests.virtual_clock import run_virtual

BODY = json.dumps({"prompt": list(b"A prompt."), "stream": True, "max_tokens": 400, "seed": 1})
SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/v1/completions",
    "headers": [(b"host", b"localhost")],
}


def test_who_takes_nothing_loses_the_turn(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        taken: list[Message] = []
        requests = [{"type": "http.request", "body": BODY.encode()}]

        async def receive() -> Message:
            return requests.pop() if requests else await asyncio.Future()

        async def send(message: Message) -> None:
            if len(taken) == 3:
                await asyncio.Future()
            taken.append(message)

        async with reference_device(None) as device:
            app = build_app(device.client)
            await app(dict(SCOPE), receive, send)
            assert len(taken) == 3
            assert asyncio.get_running_loop().time() == pytest.approx(SEND_LIMIT_S, abs=2)
            app.state.turns.check_integrity()

    run_virtual(main())
    assert "took nothing" in caplog.text
