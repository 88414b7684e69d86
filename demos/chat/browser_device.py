"""What the page needs to be a device itself: the SDK, llama.cpp in WebAssembly, the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from segue_device.pull.listing import LISTING_NAME, format_listing, list_directory

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "device-js"
PACKAGES = SDK / "node_modules"
PLACES = {
    "/sdk": SDK / "src",
    "/wllama": PACKAGES / "@wllama" / "wllama" / "esm",
    "/jinja": PACKAGES / "@huggingface" / "jinja" / "dist",
}


@dataclass(frozen=True, slots=True)
class BrowserDevice:
    """A converted model (`gguf`, fp32) and the cloud's WebSocket address for pages."""

    model: Path
    cloud: str

    def why_not(self) -> str | None:
        """What is missing, in words; None if nothing is."""
        if not PACKAGES.exists():
            return "the npm packages of device-js are not installed; start with make chat"
        if not self.model.exists():
            return "the model is not converted for llama.cpp; start with make chat"
        return None

    def routes(self) -> Sequence[BaseRoute]:
        """Files, and the model's listing with their digests."""

        async def listing(request: Request) -> Response:
            return Response(
                format_listing(list_directory(self.model)), 200, None, "application/json"
            )

        return [
            Route(f"/model/{LISTING_NAME}", listing),
            Mount("/model", StaticFiles(directory=self.model)),
            *(Mount(path, StaticFiles(directory=place)) for path, place in PLACES.items()),
        ]

    @property
    def policy(self) -> dict[str, str]:
        """Of the page's policy: WebAssembly, workers of wllama's making, this cloud."""
        return {
            "script-src": "'self' 'wasm-unsafe-eval'",
            "worker-src": "blob:",
            "connect-src": f"'self' {self.cloud}",
        }
