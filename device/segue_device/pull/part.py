"""A file that is on its way: ``NAME.part``, and beside it what it is a part of."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from segue_protocol.errors import InvalidRequest

READ_BYTES = 1 << 20

OnProgress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes there are, and all of them (None: not known)."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known beforehand; ``sha256`` in hex, lower case."""

    sha256: str | None = None
    size_bytes: int | None = None


class Part:
    """The bytes of `target` that are there, on disk, with their running digest.

    The note beside them says where they came from (`origin`) and the server's
    validator for them; without a note that can be read they are worth nothing.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self.size_bytes = 0
        self.validator: str | None = None
        self._note = target.with_name(f"{target.name}.part.json")
        self._sha256 = hashlib.sha256()

    def reopen(self, origin: str) -> None:
        """Take up what an earlier run has left of the same origin, if anything."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            if note["origin"] != _digest(origin) or not isinstance(note["validator"], str):
                return
            size_bytes, sha256 = _hash_file(self.path)
        except (OSError, ValueError, TypeError, KeyError):
            return
        self.size_bytes, self._sha256, self.validator = size_bytes, sha256, note["validator"]

    def restart(self, origin: str, validator: str | None) -> None:
        """Begin at zero. Without a `validator` the part cannot be taken up again."""
        self.size_bytes, self._sha256, self.validator = 0, hashlib.sha256(), validator
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._note.unlink(missing_ok=True)  # first: it must never describe other bytes
        self.path.write_bytes(b"")
        if validator is not None:
            note = {"origin": _digest(origin), "validator": validator}
            self._note.write_text(json.dumps(note), encoding="utf-8")

    def extend(self, blocks: Iterable[bytes]) -> None:
        """Append `blocks`; whatever ends the iteration, those that came are kept."""
        with self.path.open("r+b") as file:
            file.seek(self.size_bytes)
            file.truncate()
            for block in blocks:
                file.write(block)
                self._sha256.update(block)
                self.size_bytes += len(block)

    def reread(self) -> None:
        """Take the digest of what the disk holds, not of what was written."""
        self.size_bytes, self._sha256 = _hash_file(self.path)

    def commit(self, expected: Expected) -> None:
        """Put it in the target's place. Raises InvalidRequest, and forgets it, if it is another."""
        found = self._sha256.hexdigest()
        wrong_size = expected.size_bytes not in (None, self.size_bytes)
        if wrong_size or expected.sha256 not in (None, found):
            came = f"{self.size_bytes} bytes and SHA-256 {found}"
            sizes = "" if expected.size_bytes is None else f"{expected.size_bytes} bytes and "
            self.discard()
            raise InvalidRequest(
                f"{self.target.name} came with {came}, expected {sizes}SHA-256 {expected.sha256}; "
                "nothing of it was kept: ask whoever offers it which one is right",
                reason="DIGEST_MISMATCH",
            )
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(self.path, self.target)
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove it from the disk."""
        self.size_bytes, self._sha256, self.validator = 0, hashlib.sha256(), None
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def require_space(directory: Path, needed_bytes: int) -> None:
    """InvalidRequest unless the disk that holds `directory` has room."""
    existing = directory
    while not existing.exists():
        existing = existing.parent
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise InvalidRequest(
            f"{needed_bytes} bytes are still to be written to {directory}, {free_bytes} are free; "
            "make room, or choose another disk with --to",
            reason="DISK_FULL",
        )


def is_same(path: Path, expected: Expected) -> bool:
    """Whether `path` is a file with the expected content; False when no digest is expected."""
    if expected.sha256 is None or not path.is_file():
        return False
    if expected.size_bytes not in (None, path.stat().st_size):
        return False
    return sha256_of(path) == expected.sha256


def sha256_of(path: Path) -> str:
    """In hex."""
    return _hash_file(path)[1].hexdigest()


def _hash_file(path: Path) -> tuple[int, hashlib._Hash]:
    size_bytes, sha256 = 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            sha256.update(block)
            size_bytes += len(block)
    return size_bytes, sha256


def _digest(origin: str) -> str:
    """An address may hold a secret; its digest does not."""
    return hashlib.sha256(origin.encode()).hexdigest()
