"""A web site on loopback whose page is the device: the SDK, the library, the model, a policy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from demos.chat.browser_device import PLACES
from segue_device.convert import convert_to_gguf
from segue_device.pull.listing import LISTING_NAME, format_listing, list_directory
from tests.processes import ROOT, TINY

PAGE = Path(__file__).parent / "page"


@cache
def gguf_model() -> Path:
    """The tiny model as llama.cpp reads it, in fp32; made once."""
    return convert_to_gguf(TINY, ROOT / "models" / "tiny-gguf")


# Nothing from elsewhere, no inline code, no eval; a WebSocket to loopback.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src blob:; "
    "connect-src 'self' ws://127.0.0.1:*; base-uri 'none'; form-action 'none'"
)


class _Handler(SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        path = path.partition("?")[0]
        places = {"": PAGE, "/model": gguf_model(), **PLACES}
        prefix = max((each for each in places if path.startswith(f"{each}/")), key=len)
        return str(places[prefix] / path.removeprefix(f"{prefix}/").replace("..", ""))

    def do_GET(self) -> None:
        if self.path.endswith(LISTING_NAME):
            self._send_listing()
        else:
            super().do_GET()

    def _send_listing(self) -> None:
        body = format_listing(list_directory(gguf_model()))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        # Or the browser may keep this build's modules for the next one.
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: the browser tells what failed."""


_Handler.extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".wasm": "application/wasm"}


@contextmanager
def site() -> Iterator[str]:
    """Its address; a server in a thread of its own, stopped on the way out."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
