"""Who a caller is: bearer tokens of tenants, from files that may change while serving."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from segue_cloud.config import TenantConfig
from segue_protocol.errors import InvalidRequest, Unauthenticated

log = logging.getLogger(__name__)

SCHEME = "Bearer"
# Fewer can be guessed; 16 characters of hexadecimal digits are 64 bits.
MIN_TOKEN_CHARACTERS = 16
CHECK_INTERVAL_S = 1.0

_Stamp = tuple[int, int, int]


class TenantTokens:
    """Knows tokens by their SHA-256 only. Without tenants nobody is asked.

    Files hold one token a line; empty lines and those that begin with ``#`` do
    not count. They are read again within `CHECK_INTERVAL_S` of a change; one
    that has become unreadable or wrong is reported and what was known holds.
    A stream that is open when its token goes may go on to its end.
    """

    def __init__(
        self, tenants: Sequence[TenantConfig] = (), *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises InvalidRequest naming the tenant or the file at fault."""
        names = [tenant.name for tenant in tenants]
        for place, tenant in enumerate(tenants):
            if not tenant.name or tenant.name in names[:place]:
                raise InvalidRequest(
                    f"tenants[{place}].name is {tenant.name!r}, expected a name of its own"
                )
            if not tenant.token_file:
                raise InvalidRequest(
                    f"tenant {tenant.name!r} has no token_file; nobody could be it"
                )
        self._tenants = tenants
        self._now_s = now_s
        self._next_check_s = now_s() + CHECK_INTERVAL_S
        self._stamps = self._look()
        self._known = self._read()

    def tenant_of(self, authorization: str) -> str:
        """The tenant of an ``Authorization`` value, ``""`` where nobody is asked.

        Raises Unauthenticated.
        """
        if not self._tenants:
            return ""
        self._refresh()
        scheme, _, token = authorization.strip().partition(" ")
        if not authorization:
            raise Unauthenticated(
                "this cloud asks for a token and none came; send `authorization: Bearer TOKEN`",
                reason="NO_TOKEN",
            )
        if scheme.lower() != SCHEME.lower() or not token.strip():
            raise Unauthenticated(
                f"the authorization is no bearer token; expected `{SCHEME} TOKEN`",
                reason="NO_TOKEN",
            )
        shown = _digest(token.strip())
        found = ""
        for digest, tenant in self._known:  # all of them, so that time tells nothing
            if hmac.compare_digest(digest, shown):
                found = tenant
        if not found:
            raise Unauthenticated(
                "unknown token; it may have been replaced: ask whoever runs this cloud",
                reason="UNKNOWN_TOKEN",
            )
        return found

    def _refresh(self) -> None:
        now_s = self._now_s()
        if now_s < self._next_check_s:
            return
        self._next_check_s = now_s + CHECK_INTERVAL_S
        try:
            stamps = self._look()
            if stamps == self._stamps:
                return
            self._stamps = stamps
            self._known = self._read()
        except InvalidRequest as error:
            log.error("tokens are not read again: %s", error.message)

    def _look(self) -> list[_Stamp]:
        return [_stamp(tenant.token_file) for tenant in self._tenants]

    def _read(self) -> list[tuple[bytes, str]]:
        owners: dict[bytes, str] = {}
        for tenant in self._tenants:
            for digest in _digests(tenant.token_file):
                owner = owners.setdefault(digest, tenant.name)
                if owner != tenant.name:
                    raise InvalidRequest(
                        f"tenants {owner!r} and {tenant.name!r} share a token; each needs its own"
                    )
        return list(owners.items())


def _stamp(file: str) -> _Stamp:
    try:
        found = os.stat(file)
    except OSError as error:
        raise InvalidRequest(f"cannot read token_file {file}: {error}") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _digests(file: str) -> list[bytes]:
    path = Path(file)
    try:
        if path.stat().st_mode & 0o077:
            log.warning("%s can be read by other users of this host; chmod 600 it", file)
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"cannot read token_file {file}: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        if len(line) < MIN_TOKEN_CHARACTERS or not line.isascii() or not line.isprintable():
            raise InvalidRequest(
                f"line {number} of token_file {file} is no token; expected at least "
                f"{MIN_TOKEN_CHARACTERS} ASCII characters, e.g. from `openssl rand -hex 32`"
            )
        found.append(_digest(line))
    if not found:
        raise InvalidRequest(f"token_file {file} holds no token; nobody could be its tenant")
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
