"""`pull`: where things come from, and how they take their place."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from segue_device.pull.downloads import Downloads
from segue_device.pull.listing import (
    LISTING_NAME,
    Entry,
    check_name,
    format_listing,
    list_directory,
    parse_listing,
    parse_sha256,
)
from segue_device.pull.part import (
    READ_BYTES,
    Expected,
    OnProgress,
    Part,
    is_same,
    require_space,
    sha256_of,
)
from segue_protocol.errors import InvalidRequest, NotFound

LISTING_LIMIT_BYTES = 4 << 20

# Brings what a relative path (of a directory) names into a part.
_Fetch = Callable[[str, Part, Expected], None]


def pull(
    source: str | Path,
    to: str | Path = ".",
    *,
    sha256: str | None = None,
    force: bool = False,
    insecure: bool = False,
    on_progress: OnProgress = lambda name, done_bytes, total_bytes: None,
) -> Path:
    """Bring `source` into the directory `to`; returns where it is then.

    `source` is the address of a file, the address of a ``segue_files.json``
    (its whole directory comes), or a local file or directory. `sha256` is the
    digest of the file, of a directory that of its list. What is there with the
    same content stays as it is; something else is replaced with `force` only.
    A broken download stays as ``.part`` and is taken up by the next call.

    Raises InvalidRequest for a bad address or name, a target in the way, no
    space, or a content that is not the expected one; NotFound, Unavailable and
    the like as the server says; Unsupported without httpx.
    """
    expected = Expected(None if sha256 is None else parse_sha256(sha256))
    target = Path(to)
    try:
        if "://" in str(source):
            with Downloads(insecure=insecure) as downloads:
                return _from_web(downloads, str(source), target, expected, force, on_progress)
        return _from_disk(Path(source), target, expected, force, on_progress)
    except OSError as error:
        raise InvalidRequest(
            f"cannot write to {target}: {error}; choose another directory with --to",
            reason="NOT_WRITABLE",
        ) from error


def _from_web(
    downloads: Downloads,
    url: str,
    to: Path,
    expected: Expected,
    force: bool,
    on_progress: OnProgress,
) -> Path:
    parts = urlsplit(url)
    above, _, name = parts.path.rpartition("/")
    if name != LISTING_NAME:
        target = to / check_name(unquote(name))

        def fetch_file(path: str, part: Part, wanted: Expected) -> None:
            downloads.fetch(url, part, wanted, on_progress)

        return _place_file(target, expected, force, fetch_file)

    content = downloads.read(url, limit_bytes=LISTING_LIMIT_BYTES)
    _require_digest(content, expected, url)
    entries = parse_listing(content, LISTING_NAME)

    def fetch(path: str, part: Part, wanted: Expected) -> None:
        beside = parts._replace(path=f"{above}/{path}").geturl()
        downloads.fetch(beside, part, wanted, on_progress)

    target = to / check_name(unquote(above.rpartition("/")[2]))
    return _place_directory(target, entries, content, force, fetch)


def _from_disk(
    source: Path, to: Path, expected: Expected, force: bool, on_progress: OnProgress
) -> Path:
    source = source.resolve()
    if not source.exists():
        raise NotFound(f"there is no {source}; expected a file, a directory or an https:// address")
    target = to / check_name(source.name)
    if target.resolve() == source:
        return target

    def fetch(path: str, part: Part, wanted: Expected) -> None:
        _copy(source / path if path else source, part, on_progress)

    if source.is_file():
        found = Expected(sha256_of(source), source.stat().st_size)
        if expected.sha256 not in (None, found.sha256):
            raise _another(source.name, found.sha256, expected)
        return _place_file(target, found, force, fetch)
    if (source / LISTING_NAME).is_file():
        content = (source / LISTING_NAME).read_bytes()
        entries = parse_listing(content, LISTING_NAME)
    else:
        entries = list_directory(source)
        content = format_listing(entries)
    _require_digest(content, expected, str(source))
    return _place_directory(target, entries, content, force, fetch)


def _copy(source: Path, part: Part, on_progress: OnProgress) -> None:
    """A local file into `part`, read back from the disk for its digest."""
    total_bytes = source.stat().st_size
    require_space(part.path.parent, total_bytes)
    part.restart(str(source), validator=None)
    with source.open("rb") as file:

        def reads() -> bytes:
            on_progress(part.target.name, part.size_bytes, total_bytes)
            return file.read(READ_BYTES)

        part.extend(iter(reads, b""))
    part.reread()


def _place_file(target: Path, expected: Expected, force: bool, fetch: _Fetch) -> Path:
    if target.exists():
        if is_same(target, expected):
            return target
        if not force or target.is_dir():
            raise _in_the_way(target, known=expected.sha256 is not None)
    part = Part(target)
    fetch("", part, expected)
    part.commit(expected)
    return target


def _place_directory(
    target: Path, entries: tuple[Entry, ...], listing: bytes, force: bool, fetch: _Fetch
) -> Path:
    """Collect everything beside `target`, then put it there in one step."""
    if target.exists():
        if all(is_same(target / entry.path, entry.expected) for entry in entries):
            return target
        if not force:
            raise _in_the_way(target, known=True)
    staging = target.with_name(f"{target.name}.part")
    _remove_strangers(staging, entries)
    missing = [each for each in entries if not is_same(staging / each.path, each.expected)]
    require_space(staging, sum(entry.size_bytes for entry in missing))
    for entry in missing:
        part = Part(staging / entry.path)
        fetch(entry.path, part, entry.expected)
        part.commit(entry.expected)
    (staging / LISTING_NAME).write_bytes(listing)
    old = target.with_name(f"{target.name}.old.part")
    _remove(old)  # a run that was killed here may have left it
    if target.exists():  # a directory that is not empty cannot be replaced, only moved away
        os.replace(target, old)
    os.replace(staging, target)
    _remove(old)
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_strangers(staging: Path, entries: tuple[Entry, ...]) -> None:
    """What another list has left: a directory holds what its own list says."""
    kept = {f"{entry.path}{ending}" for entry in entries for ending in ("", ".part", ".part.json")}
    for path in sorted(staging.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(staging).as_posix() not in kept:
            path.unlink()


def _require_digest(content: bytes, expected: Expected, source: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if expected.sha256 not in (None, found):
        raise _another(f"the list of files of {source}", found, expected)


def _another(what: str, found: str | None, expected: Expected) -> InvalidRequest:
    return InvalidRequest(
        f"{what} has the SHA-256 {found}, expected {expected.sha256}; nothing of it was kept",
        reason="DIGEST_MISMATCH",
    )


def _in_the_way(target: Path, *, known: bool) -> InvalidRequest:
    what = "is there with another content" if known else "is there already"
    how = "" if known else ", --sha256 to have it compared"
    return InvalidRequest(
        f"{target} {what}; pass --force to replace it{how}, or --to for another directory",
        reason="TARGET_EXISTS",
    )
