"""A real web server on loopback that does what a test says, good or bad."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Offer:
    """One address: what it holds, and what is odd about it."""

    content: bytes = b""
    etag: str | None = '"v1"'
    last_modified: str | None = None
    status: int = 200
    location: str | None = None
    # Body bytes after which each of the next connections is cut.
    cuts: list[int] = field(default_factory=list)
    takes_ranges: bool = True
    # Ranges are served although If-Range names another content.
    obeys_if_range: bool = True
    # Where a range is said to begin, relative to what was asked.
    range_shift: int = 0
    tells_length: bool = True
    content_encoding: str | None = None


@dataclass
class WebServer:
    """Offers by path; `asked` are the requests so far: path, Range, If-Range."""

    url: str
    offers: dict[str, Offer] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: WebServer

    def do_GET(self) -> None:
        wanted, if_range = self.headers["Range"], self.headers["If-Range"]
        self.web.asked.append((self.path, wanted, if_range))
        offer = self.web.offers.get(self.path, Offer(status=404))
        status, body, headers = offer.status, offer.content, {}
        if status == 200 and wanted and offer.takes_ranges:
            validators = (None, offer.etag, offer.last_modified)
            if if_range in validators or not offer.obeys_if_range:
                status, body, headers = _ranged(offer, wanted)
        self.send_response(status)
        for name, value in {
            **headers,
            "ETag": offer.etag,
            "Last-Modified": offer.last_modified,
            "Location": offer.location,
            "Content-Encoding": offer.content_encoding,
            "Content-Length": str(len(body)) if offer.tells_length else None,
            "Connection": "close",
        }.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a client may have seen enough
            self.wfile.write(body[: offer.cuts.pop(0)] if offer.cuts else body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: the test looks at `asked`."""


def _ranged(offer: Offer, wanted: str) -> tuple[int, bytes, dict[str, str]]:
    found = re.fullmatch(r"bytes=(\d+)-", wanted)
    assert found is not None, wanted
    start, total = int(found[1]), len(offer.content)
    if start >= total:
        return 416, b"", {"Content-Range": f"bytes */{total}"}
    start += offer.range_shift
    content_range = f"bytes {start}-{total - 1}/{total}"
    return 206, offer.content[start:], {"Content-Range": content_range}


@contextmanager
def web_server() -> Iterator[WebServer]:
    """A server in a thread of its own, stopped on the way out."""

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.web = WebServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Handler.web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
