"""``segue_files.json``: which files a directory consists of, so that a web server can offer it.

::

    {"format": 1, "files": [{"path": "model.onnx", "size_bytes": 7, "sha256": "..."}]}

Paths are relative to the list, with ``/`` between their parts.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segue_device.pull.part import Expected, sha256_of
from segue_protocol.errors import InvalidRequest, NotFound

LISTING_NAME = "segue_files.json"

_FORMAT = 1
_MAX_FILES = 10_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a directory."""

    path: str
    size_bytes: int
    sha256: str

    @property
    def expected(self) -> Expected:
        return Expected(self.sha256, self.size_bytes)


def parse_listing(content: bytes, source: str) -> tuple[Entry, ...]:
    """The entries of a list; InvalidRequest naming `source` and what is wrong with it."""
    try:
        found = json.loads(content)
        if found["format"] != _FORMAT:
            raise ValueError(f"format is {found['format']!r}, expected {_FORMAT}")
        entries = tuple(_entry(each) for each in found["files"])
    except (ValueError, TypeError, KeyError, InvalidRequest) as error:
        raise InvalidRequest(
            f"{source} is no list of files: {error}; write it with segue index",
            reason="BAD_LISTING",
        ) from error
    # Two names that differ in case alone are one file on many devices.
    folded = [entry.path.casefold() for entry in entries]
    if not entries or len(entries) > _MAX_FILES or len(set(folded)) != len(folded):
        raise InvalidRequest(
            f"{source} lists {len(entries)} files, {len(set(folded))} of them distinct; expected "
            f"1 to {_MAX_FILES}, each once",
            reason="BAD_LISTING",
        )
    return entries


def list_directory(directory: Path) -> tuple[Entry, ...]:
    """Every file below `directory` but a list; reads all of them.

    Raises NotFound without one, InvalidRequest for a name that other devices
    may not take.
    """
    entries = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != LISTING_NAME:
            _check_path(name)
            entries.append(Entry(name, path.stat().st_size, sha256_of(path)))
    if not entries:
        raise NotFound(f"{directory} holds no file; name the directory of a model")
    return tuple(entries)


def format_listing(entries: tuple[Entry, ...]) -> bytes:
    """The list as it is stored; the same entries give the same bytes."""
    content = {"format": _FORMAT, "files": [asdict(entry) for entry in entries]}
    return (json.dumps(content, indent=1) + "\n").encode()


def write_listing(directory: str | Path) -> Path:
    """Write the list of `directory` into it and return its path; raises as list_directory."""
    path = Path(directory) / LISTING_NAME
    content = format_listing(list_directory(Path(directory)))
    beside = path.with_name(f"{LISTING_NAME}.part")
    beside.write_bytes(content)
    os.replace(beside, path)
    return path


def check_name(name: str) -> str:
    """`name`, if it is a file name on every system; InvalidRequest otherwise."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is no file name for every system; expected letters, digits and _.+=@-, "
            "not beginning with a dot",
            reason="BAD_NAME",
        )
    return name


def parse_sha256(text: str) -> str:
    """A digest in lower-case hex; InvalidRequest for anything else."""
    if not _SHA256.fullmatch(text.lower()):
        raise InvalidRequest(f"the SHA-256 is {text!r}, expected 64 hexadecimal digits")
    return text.lower()


def _entry(found: Any) -> Entry:
    entry = Entry(**found)
    if not isinstance(entry.size_bytes, int) or entry.size_bytes < 0:
        raise ValueError(f"size_bytes of {entry.path} is {entry.size_bytes!r}")
    if not isinstance(entry.sha256, str) or not _SHA256.fullmatch(entry.sha256):
        raise ValueError(f"sha256 of {entry.path} is {entry.sha256!r}")
    if entry.path == LISTING_NAME:
        raise ValueError("it lists itself")
    _check_path(entry.path)
    return entry


def _check_path(path: str) -> None:
    """Only downwards, and nothing that means something else on another system."""
    for part in path.split("/"):
        try:
            check_name(part)
        except InvalidRequest as error:
            raise InvalidRequest(f"in the path {path!r}: {error.message}") from error
