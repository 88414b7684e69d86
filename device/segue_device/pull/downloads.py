"""Files over HTTP: resumed where they broke off, and never in plain text over a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from segue_device.engines.checks import missing_extra
from segue_device.pull.part import Expected, OnProgress, Part, require_space
from segue_protocol.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    SegueError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from segue_protocol.hosts import is_loopback

if TYPE_CHECKING:
    import httpx

CONNECT_S = 10.0
# Between two blocks, not for the whole file.
SILENCE_S = 30.0

MAX_REDIRECTS = 5
# As long as every try brings bytes. A server that cuts each of them is no server.
MAX_TRIES = 10

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")


class Downloads:
    """A connection pool; a context manager. `insecure` allows ``http://`` to other machines."""

    def __init__(self, *, insecure: bool = False) -> None:
        try:
            import httpx
        except ImportError as error:
            raise missing_extra("cli", "httpx") from error
        self._httpx = httpx
        self._insecure = insecure
        self._client = httpx.Client(
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
            # As it is stored: a range of a compressed form is no range of the file.
            headers={"Accept-Encoding": "identity", "User-Agent": "segue"},
        )

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def read(self, url: str, *, limit_bytes: int) -> bytes:
        """A small file; InvalidRequest when it is larger than `limit_bytes`."""
        content = b""
        with self._translated(url), self._get(url, {}) as response:
            _require_ok(response, url)
            for block in response.iter_raw():
                content += block
                if len(content) > limit_bytes:
                    raise InvalidRequest(
                        f"{_shown(url)} is larger than {limit_bytes} bytes; expected a short list"
                    )
        return content

    def fetch(self, url: str, part: Part, expected: Expected, on_progress: OnProgress) -> None:
        """Bring all of `url` into `part`, whose content is not compared here.

        A connection that breaks is taken up again as long as that brings bytes;
        then Unavailable is raised and the part stays for another run. Without a
        validator nothing can be taken up, and the first break is the last.
        """
        part.reopen(url)
        for tries in range(MAX_TRIES):
            before = part.size_bytes
            try:
                with self._translated(url):
                    complete = self._try(url, part, expected, on_progress)
            except Unavailable:
                if part.validator is None:
                    part.discard()
                    raise
                if part.size_bytes <= before or tries == MAX_TRIES - 1:
                    raise
                continue
            if complete:
                return
        raise Unavailable(f"{_shown(url)} broke off {MAX_TRIES} times; run it again to go on")

    def _try(self, url: str, part: Part, expected: Expected, on_progress: OnProgress) -> bool:
        """One request; False when it must be made again from zero."""
        headers = {}
        if part.size_bytes and part.validator is not None:
            headers = {"Range": f"bytes={part.size_bytes}-", "If-Range": part.validator}
        with self._get(url, headers) as response:
            validator = _validator(response, expected)
            if headers and response.status_code in (206, 416):
                total_bytes = _resumed_total(response, part)
                if validator not in (None, part.validator) or total_bytes is None:
                    part.discard()  # it is a part of another file
                    return False
                if response.status_code == 416:
                    return True  # all of it was there already
            else:
                _require_ok(response, url)
                total_bytes = _length(response)
                part.restart(url, validator)
            self._store(response, part, total_bytes, expected, on_progress)
        return True

    def _store(
        self,
        response: httpx.Response,
        part: Part,
        total_bytes: int | None,
        expected: Expected,
        on_progress: OnProgress,
    ) -> None:
        if total_bytes is None and expected.sha256 is None:
            raise Unsupported(
                f"{_shown(str(response.url))} comes without its length, so its end cannot be told "
                "from a cut; pass its SHA-256"
            )
        if total_bytes is not None and expected.size_bytes not in (None, total_bytes):
            raise InvalidRequest(
                f"{_shown(str(response.url))} has {total_bytes} bytes, expected "
                f"{expected.size_bytes} as listed; ask whoever offers it which one is right",
                reason="DIGEST_MISMATCH",
            )
        require_space(part.path.parent, (total_bytes or 0) - part.size_bytes)

        def blocks() -> Iterator[bytes]:
            on_progress(part.target.name, part.size_bytes, total_bytes)
            for block in response.iter_raw():
                yield block
                on_progress(part.target.name, part.size_bytes, total_bytes)

        part.extend(blocks())
        if total_bytes not in (None, part.size_bytes):
            raise Unavailable(
                f"{_shown(str(response.url))} ended after {part.size_bytes} of {total_bytes} bytes"
            )

    @contextmanager
    def _get(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The response behind all redirects, its body not read."""
        target = self._allowed(self._httpx.URL(url), None)
        for _ in range(MAX_REDIRECTS + 1):
            with self._client.stream("GET", target, headers=headers) as response:
                if not response.has_redirect_location:
                    yield response
                    return
                location = response.headers["Location"]
            target = self._allowed(target.join(location), target)
        raise InvalidRequest(f"{_shown(url)} redirects more than {MAX_REDIRECTS} times")

    def _allowed(self, url: httpx.URL, referrer: httpx.URL | None) -> httpx.URL:
        """`url`, if its bytes cannot be changed on the way; InvalidRequest otherwise."""
        plain_is_fine = self._insecure or is_loopback(url.host)
        if referrer is not None:  # never from a safe connection to one that is not
            plain_is_fine = plain_is_fine and referrer.scheme == "http"
        if url.scheme == "https" or (url.scheme == "http" and plain_is_fine):
            return url
        what = "redirects to" if referrer is not None else "is"
        raise InvalidRequest(
            f"{_shown(str(referrer or url))} {what} {url.scheme}://{url.host}; expected https://, "
            "or --insecure where the network can be trusted",
            reason="INSECURE_ADDRESS",
        )

    @contextmanager
    def _translated(self, url: str) -> Iterator[None]:
        """Errors of the connection as Segue's."""
        try:
            yield
        except (self._httpx.TransportError, self._httpx.StreamError) as error:
            raise Unavailable(
                f"{_shown(url)} cannot be read ({error or type(error).__name__}); check the "
                "network and run it again"
            ) from error
        except self._httpx.InvalidURL as error:
            raise InvalidRequest(f"{_shown(url)} is no address: {error}") from error


def _validator(response: httpx.Response, expected: Expected) -> str | None:
    """What tells this content from a later one at the same address."""
    tag: str = response.headers.get("ETag", "")
    if tag.startswith('"'):
        return tag
    # A date has seconds only: two contents may share it, so the digest must decide.
    return response.headers.get("Last-Modified") if expected.sha256 is not None else None


def _resumed_total(response: httpx.Response, part: Part) -> int | None:
    """The length of the whole file when the rest of `part` follows, else None."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None:
        return None
    first, last, total = found.groups()
    if response.status_code == 416:
        return int(total) if int(total) == part.size_bytes else None
    if first is None or int(first) != part.size_bytes or int(last) + 1 != int(total):
        return None
    return int(total)


def _require_ok(response: httpx.Response, url: str) -> None:
    """Raise what the status means unless the whole file follows."""
    status = response.status_code
    if status == 200:
        coding = response.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            raise ProtocolError(
                f"{_shown(url)} comes {coding}-encoded although that was not asked for; "
                "serve the file as it is"
            )
        return
    words = f"{_shown(url)} answers {status} {response.reason_phrase}"
    errors: dict[int, SegueError] = {
        401: Unauthenticated(f"{words}; it wants a login, which segue pull does not have"),
        403: PermissionDenied(f"{words}; ask whoever offers it for access"),
        404: NotFound(f"{words}; check the address"),
        410: NotFound(f"{words}; it is no longer offered"),
        429: Overloaded(f"{words}; try again later"),
    }
    if status in errors:
        raise errors[status]
    if status >= 500 or status == 408:
        raise Unavailable(f"{words}; try again later")
    raise InvalidRequest(f"{words}, expected 200 OK; check the address")


def _length(response: httpx.Response) -> int | None:
    text: Any = response.headers.get("Content-Length")
    return int(text) if text is not None and text.isdecimal() else None


def _shown(url: str) -> str:
    """`url` without what may be secret in it: user, password and query."""
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0].partition("#")[0]
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
