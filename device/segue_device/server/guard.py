"""Who may speak to the server at all."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from segue_device.server.errors import HttpError
from segue_protocol.errors import PermissionDenied, SegueError, Unauthenticated
from segue_protocol.hosts import is_loopback

OPEN_PATHS = ("/healthz",)


class SiteGuard:
    """Turns away web pages, which may not use the models of the device that shows them.

    A page whose name was made to point here (DNS rebinding) still sends its own
    name as Host; any other page sends its Origin.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], origins: Collection[str]) -> None:
        self._app = app
        self._hosts = {each.lower() for each in hosts}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refuse(Headers(scope=scope)) if scope["type"] == "http" else None
        await _pass_or_refuse(self._app, error, scope, receive, send)

    def _refuse(self, headers: Headers) -> SegueError | None:
        host = headers.get("host", "")
        name = host_name(host)
        if not is_loopback(name) and name not in self._hosts:
            return PermissionDenied(
                f"host {host!r} is not this server's; use localhost, or start the server with "
                "that name among its allowed hosts",
                reason="HOST_REFUSED",
            )
        origin = headers.get("origin")
        own = (f"http://{host}", f"https://{host}")
        if origin is not None and origin not in self._origins and origin not in own:
            return PermissionDenied(
                f"web pages of {origin!r} may not use this server; start it with that origin "
                "among its allowed origins",
                reason="ORIGIN_REFUSED",
            )
        return None


class KeyGuard:
    """Asks for ``Authorization: Bearer KEY`` everywhere but at `OPEN_PATHS`."""

    def __init__(self, app: ASGIApp, *, api_key: str) -> None:
        self._app = app
        self._expected = f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = None
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            given = Headers(scope=scope).get("authorization", "").encode("latin-1")
            if not secrets.compare_digest(given, self._expected):
                error = Unauthenticated("no API key, or a wrong one; pass this server's own key")
        await _pass_or_refuse(self._app, error, scope, receive, send)


def host_name(host: str) -> str:
    """The name or address in a Host header, without the port, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


async def _pass_or_refuse(
    app: ASGIApp, error: SegueError | None, scope: Scope, receive: Receive, send: Send
) -> None:
    await (app if error is None else HttpError.of(error).response())(scope, receive, send)
