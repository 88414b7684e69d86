"""What browsers are told about the page: nothing from elsewhere, nothing of it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# As strict as it gets; a browser that is the device itself needs a little more.
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class PageHeaders:
    """Adds them to every response; `policy` replaces and adds directives."""

    def __init__(self, app: ASGIApp, *, policy: Mapping[str, str]) -> None:
        self._app = app
        directives = {**POLICY, **policy}
        policy_text = "; ".join(f"{name} {value}" for name, value in directives.items())
        self._headers = {**HEADERS, "content-security-policy": policy_text}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)
