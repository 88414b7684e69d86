"""The cells of prompts' beginnings, kept on disk from one launch to the next.

An app whose prompts all begin with one system prompt computes its cells once.
Files are named by a SHA-256 over weights, numerics, engine and ids, so each
engine finds its own and no file must be opened to look for one. A file is
written under another name and then renamed: processes that share a directory
see whole files or none. The ids can be read from a file; the directory is to be
protected like the conversations of the app.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from segue_device.engines.base import DeviceEngine
from segue_device.engines.saved_cells import FORMAT
from segue_protocol.errors import IdentityMismatch, InternalError, InvalidRequest, Unsupported

_SUFFIX, _UNFINISHED = ".cells", ".tmp"
# A file still unfinished so long after its last byte has lost its process.
_ABANDONED_NS = 3600 * 10**9


def leading_cells(cells: Sequence[tuple[int, int]], ids: Sequence[int]) -> int:
    """How many of the first (position, id) `cells` are those of `ids` from position 0."""
    count = 0
    for place, (cell, token) in enumerate(zip(cells, ids, strict=False)):
        if cell != (place, token):
            break
        count = place + 1
    return count


class PrefixStore:
    """A directory of saved cells, of `max_bytes` at most; the least recently used go first.

    Several engines, processes and models may share it. Calls block; they belong
    on the engine's thread (:meth:`segue_device.engines.Runner.use`). ``hits``
    counts the restores that loaded cells, ``misses`` the others.
    """

    def __init__(self, directory: str | Path, *, max_bytes: int = 1 << 30) -> None:
        if max_bytes < 1:
            raise InvalidRequest(f"max_bytes is {max_bytes}, expected at least 1")
        self.directory = Path(directory)
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0

    def save(self, engine: DeviceEngine, ids: Sequence[int]) -> None:
        """Keep the cells of `ids`, with which the engine's cache begins.

        InvalidRequest when it does not or when they alone exceed ``max_bytes``
        (``PREFIX_TOO_LARGE``), InternalError when the directory cannot be
        written to (``PREFIX_STORE_UNWRITABLE``).
        """
        found = leading_cells(engine.cells, ids)
        if not 0 < len(ids) == found:
            raise InvalidRequest(
                f"the cache begins with {found} of {len(ids)} tokens to keep, expected at least "
                "one and all of them; append them first"
            )
        *_, name = _names(engine, ids)
        path = self.directory / name
        try:
            if path.exists():
                os.utime(path)
                return
            self.directory.mkdir(parents=True, exist_ok=True)
            self._write(engine, len(ids), path)
        except OSError as error:
            raise InternalError(
                f"cannot keep a prefix in {self.directory}: {error}; free some space there or "
                "name a directory that can be written to",
                reason="PREFIX_STORE_UNWRITABLE",
            ) from error

    def restore(self, engine: DeviceEngine, ids: Sequence[int], *, longer_than: int = 0) -> int:
        """Load the longest kept prefix of `ids`, if it has more than `longer_than` tokens.

        It replaces what the cache holds. Returns its length, 0 when there is
        none; a damaged file is deleted, and may leave the cache empty. Raises
        InvalidRequest for a closed engine, InternalError when memory is short.
        """
        for count, path in self._kept(engine, ids):
            if count <= longer_than or not engine.rewind(0):
                break
            if self._load(engine, path, ids[:count]):
                self.hits += 1
                return count
            longer_than = 0
        self.misses += 1
        return 0

    def _kept(self, engine: DeviceEngine, ids: Sequence[int]) -> list[tuple[int, Path]]:
        """Prefixes of `ids` that have a file and fit the engine: (tokens, path), longest first."""
        try:
            present = set(os.listdir(self.directory))
        except OSError:
            return []
        limits = engine.capabilities
        fitting = ids[: min(limits.max_context_tokens, limits.max_positions)]
        names = enumerate(_names(engine, fitting), start=1)
        found = [(count, self.directory / name) for count, name in names if name in present]
        return found[::-1]

    def _load(self, engine: DeviceEngine, path: Path, ids: Sequence[int]) -> bool:
        """Whether the file was one of `ids`; deletes one that was not."""
        try:
            with path.open("rb") as file:
                engine.import_cells(file)
        except OSError:  # another process has deleted it
            return False
        except (InvalidRequest, Unsupported, IdentityMismatch):
            _delete(path)
            return False
        if tuple(engine.cells) != tuple(enumerate(ids)):
            engine.rewind(0)
            _delete(path)
            return False
        with suppress(OSError):
            os.utime(path)
        return True

    def _write(self, engine: DeviceEngine, count: int, path: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.directory, suffix=_UNFINISHED)
        unfinished = Path(name)
        try:
            # No fsync: a file cut short by a power failure is found damaged and deleted.
            with open(descriptor, "wb") as file:
                engine.export_cells(count, file)
                size = file.tell()
            if size > self.max_bytes:
                raise InvalidRequest(
                    f"{count} cells take {size} bytes, more than the store's {self.max_bytes}; "
                    "keep a shorter prefix or raise max_bytes",
                    reason="PREFIX_TOO_LARGE",
                )
            try:
                os.replace(unfinished, path)
            except PermissionError:  # Windows, while another process reads its own copy
                if not path.exists():
                    raise
        finally:
            _delete(unfinished)
        self._evict(path)

    def _evict(self, newest: Path) -> None:
        """Delete what was used longest ago until the rest fits; `newest` stays."""
        with suppress(FileNotFoundError):  # another process has evicted it already
            now_ns, room = newest.stat().st_mtime_ns, self.max_bytes - newest.stat().st_size
            for used_ns, size, path in sorted(self._files(), reverse=True):
                if path.suffix == _UNFINISHED:
                    if used_ns < now_ns - _ABANDONED_NS:
                        _delete(path)
                elif path != newest:
                    room -= size
                    if room < 0:
                        _delete(path)

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """(last use in ns, bytes, path) of every file of a store."""
        for path in self.directory.iterdir():
            if path.suffix in (_SUFFIX, _UNFINISHED):
                with suppress(FileNotFoundError):
                    found = path.stat()
                    yield found.st_mtime_ns, found.st_size, path


def _names(engine: DeviceEngine, ids: Sequence[int]) -> Iterator[str]:
    """The file name of every prefix of `ids`, shortest first."""
    identity = engine.identity
    owner = [FORMAT, identity.weights_digest.hex(), identity.numerics, engine.cells_format]
    digest = hashlib.sha256(json.dumps(owner).encode())
    for token in ids:
        if not 0 <= token < identity.vocab_size:
            return
        digest.update(token.to_bytes(4, "little"))
        yield digest.copy().hexdigest() + _SUFFIX


def _delete(path: Path) -> None:
    with suppress(OSError):  # gone already, or on Windows in use: the next time, then
        path.unlink()
