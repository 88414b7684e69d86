"""What proves, without TLS, that a peer on loopback belongs to the cluster.

A gateway, or a worker that is there before it, draws a token and leaves it in a
file that only its own user can read, named after the gateway's worker port:
workers and commands of that user on that host find it there, others are
refused. It stays when the gateway ends, so that workers know the next one on
that port. It never stands on a command line, which every user can list. For
anything else the operator hands the same file to both sides (setting
`cluster_token_file`), or uses TLS.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from segue_protocol.errors import InvalidRequest, Unauthenticated
from segue_protocol.hosts import host_of, is_loopback

TOKEN_BYTES = 32


def draw() -> str:
    """A new one."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def publish(worker_port: int, token: str) -> Path:
    """Leave the token for this user's processes; returns its file.

    Raises InvalidRequest when the directory is not this user's alone.
    """
    path = _path(worker_port)
    _draft(path, token).replace(path)
    return path


def ensure(worker_port: int) -> str:
    """This user's token for a worker port: the one that is there, or a new one.

    Raises InvalidRequest as :func:`publish`.
    """
    path = _path(worker_port)
    draft = _draft(path, draw())
    with suppress(FileExistsError):
        os.link(draft, path)  # of several at once, one wins
    draft.unlink()
    return path.read_text().strip()


def _draft(path: Path, token: str) -> Path:
    """The token in a private file beside `path`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_private(path.parent)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    return draft


def find(gateway: str, file: str = "") -> str:
    """The token for the gateway whose worker port is `gateway` (``host:port``).

    Taken from `file` where one is given. Raises InvalidRequest when that cannot
    be read, Unauthenticated when there is none to be found.
    """
    if file:
        return read(file)
    if is_loopback(host_of(gateway)):
        path = _path(int(gateway.rpartition(":")[2]))
        try:
            _require_private(path.parent)
            return path.read_text().strip()
        except OSError:
            pass
    raise Unauthenticated(
        f"no cluster token for the gateway at {gateway}: it runs on another host, as another user "
        "or not at all; give both sides the same cluster_token_file, or worker_tls_* files",
        reason="NO_CLUSTER_TOKEN",
    )


def read(file: str) -> str:
    """A token from a file of the operator's. Raises InvalidRequest."""
    try:
        token = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"cannot read cluster_token_file {file}: {error}") from error
    if len(token) < TOKEN_BYTES or not token.isascii() or not token.isprintable():
        raise InvalidRequest(
            f"cluster_token_file {file} holds no token; expected one line of at least "
            f"{TOKEN_BYTES} ASCII characters, e.g. from `openssl rand -hex 32`"
        )
    return token


def _path(worker_port: int) -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR")
    directory = (
        Path(given) / "segue"
        if given
        else Path(tempfile.gettempdir()) / f"segue-{os.geteuid()}"  # others can write beside it
    )
    return directory / f"cluster-{worker_port}.token"


def _require_private(directory: Path) -> None:
    found = os.lstat(directory)
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not mine or found.st_mode & 0o077:
        raise InvalidRequest(
            f"{directory} must be a directory of this user alone (mode 0700), because the "
            "cluster's token lies there; remove it, or set XDG_RUNTIME_DIR to another one"
        )
