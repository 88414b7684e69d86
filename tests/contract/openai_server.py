"""The server on a real socket, its loop in a thread of its own, as an app would run it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from openai import AsyncOpenAI, OpenAI

from segue_device import AsyncClient, DeviceModel, DeviceProfile, Result
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.engines.runner import InlineRunner
from segue_device.server import serve
from segue_protocol.errors import InternalError
from segue_protocol.reference import STOP_ID, reference_vocabulary
from tests.processes import device_model

DEADLINE_S = 30.0
FAST = DeviceProfile(0.0, 0.0001, 0.0, 0.001, 0.0)
KEY = "a key of this test"


@dataclass
class Server:
    """A running server and the client behind it."""

    port: int
    client: AsyncClient
    portal: BlockingPortal
    task: asyncio.Task[None]
    ended: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def openai(self, key: str = KEY) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=DEADLINE_S)

    def async_openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, api_key=KEY, max_retries=0, timeout=DEADLINE_S)

    def own_answer(self, **request: Any) -> Result:
        """What the SDK itself answers."""

        async def answer() -> Result:
            async with self.client.stream(**request) as stream:
                return await stream.final()

        return self.portal.call(answer)

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        return self.raw("GET", path, None, headers)

    def raw(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, Any]:
        """One request without the openai package: status and JSON."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, DEADLINE_S)) as connection:
            connection.request(method, path, body, {"Authorization": f"Bearer {KEY}", **headers})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def begin(self, path: str, body: Mapping[str, Any]) -> http.client.HTTPConnection:
        """Send a request and do not read; its end is a close."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, DEADLINE_S)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST", f"/v1{path}", json.dumps(body), headers)
        return connection

    def end(self) -> None:
        """Stop serving."""
        self.ended = True
        self.portal.call(self.task.cancel)

    def wait_for(self, *, running: int, waiting: int) -> None:
        """Until so many requests have their turn and so many wait for it."""
        deadline_s = time.monotonic() + DEADLINE_S
        wanted = {"status": "ok", "running": running, "waiting": waiting}
        while (found := self.get("/healthz")[1]) != wanted:
            assert time.monotonic() < deadline_s, found


@contextmanager
def running_server(
    open_client: Callable[[], Any], *, api_key: str | None = KEY, **options: Any
) -> Iterator[Server]:
    """Serve the client that `open_client` makes; the engine must be idle at the end."""
    with start_blocking_portal() as portal:
        serving = partial(_serving, open_client, portal, api_key=api_key, **options)
        with portal.wrap_async_context_manager(portal.call(serving)) as server:
            yield server
            if not server.ended:
                server.wait_for(running=0, waiting=0)


@asynccontextmanager
async def _serving(
    open_client: Callable[[], Any], portal: BlockingPortal, **options: Any
) -> AsyncIterator[Server]:
    async with open_client() as client:
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(client, on_listening=port.set_result, **options))
        try:
            yield Server(await port, client, portal, task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def tiny_client(**options: Any) -> AsyncIterator[AsyncClient]:
    """The tiny model on the real ONNX engine, no cloud."""
    model = await DeviceModel.load(device_model(), profile=FAST)
    async with AsyncClient(model=model, **options) as client:
        yield client


class Engine:
    """The reference engine, laid open to hold-ups and failures.

    From `hold_at` cells on it waits until `release`, from `fail_at` on it fails.
    """

    def __init__(self, *, hold_at: int | None = None, fail_at: int | None = None) -> None:
        self.hold_at = hold_at
        self.fail_at = fail_at
        self.held = threading.Event()
        self.stopped = threading.Event()
        self._released = asyncio.Event()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        runner = InlineRunner(ReferenceDeviceEngine(), self._cost)
        model = DeviceModel(runner, FAST, vocabulary=reference_vocabulary())
        async with AsyncClient(model=model, reuse_kv=False) as client:
            yield client

    def release(self, portal: BlockingPortal) -> None:
        """Hold nothing any more."""
        self.hold_at = None
        portal.call(self._released.set)

    async def _cost(self, n_tokens: int, n_cells: int) -> None:
        cells = n_cells + n_tokens
        if self.fail_at is not None and cells >= self.fail_at:
            raise InternalError("the engine of this test has failed", reason="BROKEN_ENGINE")
        if self.hold_at is not None and cells >= self.hold_at:
            self.held.set()
            try:
                await self._released.wait()
            finally:
                self.stopped.set()


# For the reference engine, which has no tokenizer; it never ends early.
PROMPT = list(b"How did the letter find its way across the sea? ")
ENDLESS = {
    "prompt": PROMPT,
    "model": "segue-reference",
    "seed": 4,
    "logit_bias": {str(STOP_ID): -100},
}
