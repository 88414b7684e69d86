"""The chat page over a real cluster: ``python -m demos.chat``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import uvicorn
from starlette.applications import Starlette

from demos.chat.app import build_app
from demos.chat.browser_device import BrowserDevice
from demos.chat.conversations import Conversations
from demos.chat.device import Device
from demos.chat.network import EmulatedNetwork
from demos.chat.settings import Settings
from demos.cluster import Cluster, running_cluster
from demos.split.runs import load_prompts
from segue_device import Mode
from segue_device.convert import convert_to_onnx
from segue_device.transports.grpc import GrpcTransport

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "demos" / "model" / "tiny"
PORT = 8720
# Streams that pages still read when the server ends.
CLOSE_TIMEOUT_S = 1
# A prompt that is asked again would else come from the cache, and flatter the cloud.
CLUSTER_FLAGS = ("--prefix-cache-bytes", "0", "--log-level", "warning")


@asynccontextmanager
async def opened_app(
    model: Path, prompts: Path, cluster: Cluster, browser: BrowserDevice
) -> AsyncIterator[Starlette]:
    """The application over two devices of this computer, the browser, and a cloud."""
    network = EmulatedNetwork(GrpcTransport(cluster.address), Settings().rtt_ms / 1e3)
    devices = Device(model, network), Device(model, network)
    try:
        await warm_up(devices)
        async with anyio.create_task_group() as tasks:
            offered = load_prompts(prompts)
            yield build_app(Conversations(tasks, *devices, offered), network, offered, browser)
            tasks.cancel_scope.cancel()
    finally:
        for device in devices:
            await device.aclose()
        await network.aclose()


async def warm_up(devices: Sequence[Device]) -> None:
    """A short answer from each side: the first of a new process is slow, and nobody's measure."""
    messages = [{"role": "user", "content": "Good morning."}]
    ways = [(devices[0], Mode.ONLY_IN_CLOUD), *((each, Mode.ONLY_ON_DEVICE) for each in devices)]
    for device, mode in ways:
        async with device.stream(Settings(mode, max_tokens=2), messages=messages) as answer:
            await answer.final()


async def serve(opened: AbstractAsyncContextManager[Starlette], listener: socket.socket) -> None:
    """Serve the page until Ctrl-C or SIGTERM."""
    async with opened as app:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
        )
        port = listener.getsockname()[1]
        print(f"chat with it at http://127.0.0.1:{port}/ (Ctrl-C ends it)", flush=True)
        await _Server(config).serve([listener])


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the serving alone: what is around it has to be closed too."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._end)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        self.should_exit = True


def main() -> int:
    """Returns 0 after an orderly end."""
    parser = argparse.ArgumentParser(prog="python -m demos.chat", description=__doc__)
    parser.add_argument("--model", type=Path, default=TINY, help="a Hugging Face directory")
    parser.add_argument("--prompts", type=Path, default=ROOT / "demos/model/demo_prompts.json")
    parser.add_argument("--port", type=int, default=PORT, help="0 takes a free one")
    options = parser.parse_args()
    name = options.model.name
    device_model = convert_to_onnx(options.model, ROOT / "models" / f"{name}-onnx")
    try:
        listener = socket.create_server(("127.0.0.1", options.port))
    except OSError as error:
        print(f"cannot listen on port {options.port}: {error}; try --port 0", file=sys.stderr)
        return 1
    port = listener.getsockname()[1]
    # The page itself may be a device of the cloud; no other page may.
    origins = f"http://127.0.0.1:{port},http://localhost:{port}"
    flags = (*CLUSTER_FLAGS, "--websocket-origins", origins)
    with listener, running_cluster(options.model, *flags) as cluster:
        browser = BrowserDevice(ROOT / "models" / f"{name}-gguf", cluster.websocket_url)
        opened = opened_app(device_model, options.prompts, cluster, browser)
        asyncio.run(serve(opened, listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
