"""Anonymous shared memory that leaves nothing behind.

A worker creates a :class:`MemoryFile` with ``memfd_create``; another process of
the same host and user attaches it through ``/proc/<pid>/fd/<n>``. The file has
no name in any file system, so the kernel frees it with the last process that
maps it, also after SIGKILL (POSIX ``shm_open`` segments would stay).

Layout, little-endian: a fixed header, one u64 generation counter a slot, one u64
a slot that counts its finished layers, then the data region at the next multiple
of 4096 bytes. Attached files are mapped read-only, so that a receiver cannot
damage a sender, unless both write by turns (a page pool of several processes).

Memory that nobody maps, since a backend reads it in another way, is the same
without a file: the kernel then gives it huge pages, and process_vm_readv reads it
twice as fast (benchmarks/kv_transfer.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import stat
import struct

import numpy as np
import numpy.typing as npt

from segue_protocol.errors import InternalError, InvalidRequest, TransferError

PAGE_BYTES = 4096
INCARNATION_BYTES = 16
VERSION = 2

_MAGIC = b"SEGUE-KV"
_NAME = "segue-kv"
# magic, version, slots, incarnation, bytes of the data region
_HEADER = struct.Struct("<8sII16sQ")
HEADER_BYTES = _HEADER.size
NO_DESCRIPTOR = -1
# Without the shrink seal a sender could truncate the file under a reader, whose
# next access would be a SIGBUS instead of an exception. Seals are never broken.
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class MemoryFile:
    """One mapping of a memory file, made by :meth:`create` or :meth:`attach`.

    ``generations`` and ``layers_done`` are u64 [slots], ``data`` is u8 [data
    bytes]; all are views of the mapping, writable in the process that created
    the file and where it was attached so.
    """

    def __init__(
        self,
        mapping: mmap.mmap,
        status: os.stat_result | None,
        *,
        pid: int,
        descriptor: int,
        owned: bool,
    ) -> None:
        _, _, slots, incarnation, data_bytes = _HEADER.unpack_from(mapping)
        self.pid = pid
        self.descriptor = descriptor
        self.incarnation: bytes = incarnation
        self._view(mapping, slots, data_bytes)
        self._file = _file_number(status) if status is not None else None
        self._closed = False
        self._owned = owned  # a process may also attach to its own file

    @classmethod
    def create(
        cls,
        *,
        slots: int,
        data_bytes: int,
        incarnation: bytes | None = None,
        shared: bool = True,
    ) -> MemoryFile:
        """Make a zeroed file that this process owns; not `shared`: memory nobody can map.

        ``incarnation`` is 16 bytes, drawn here when absent. Raises
        InvalidRequest for sizes that make no file.
        """
        incarnation = secrets.token_bytes(INCARNATION_BYTES) if incarnation is None else incarnation
        if len(incarnation) != INCARNATION_BYTES:
            raise InvalidRequest(
                f"an incarnation has {INCARNATION_BYTES} bytes, got {len(incarnation)}"
            )
        if slots < 1 or data_bytes < 1:
            raise InvalidRequest(
                f"a memory file needs at least one slot and one byte, got {slots} slots "
                f"and {data_bytes} bytes"
            )
        size_bytes = _data_offset(slots) + data_bytes
        if not shared:
            mapping = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with contextlib.suppress(OSError):  # a kernel without huge pages
                mapping.madvise(mmap.MADV_HUGEPAGE)
            _HEADER.pack_into(mapping, 0, _MAGIC, VERSION, slots, incarnation, data_bytes)
            return cls(mapping, None, pid=os.getpid(), descriptor=NO_DESCRIPTOR, owned=True)
        descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size_bytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            mapping = mmap.mmap(descriptor, 0)
            _HEADER.pack_into(mapping, 0, _MAGIC, VERSION, slots, incarnation, data_bytes)
            status = os.fstat(descriptor)
            return cls(mapping, status, pid=os.getpid(), descriptor=descriptor, owned=True)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def attach(
        cls, pid: int, descriptor: int, incarnation: bytes, *, writable: bool = False
    ) -> MemoryFile:
        """Map the file that process `pid` holds as `descriptor`, read-only unless `writable`.

        Raises TransferError: KV_PEER_GONE when process or descriptor is no
        more, KV_PEER_DENIED when it belongs to another user, KV_INCARNATION
        when something else answers to the same numbers (pids are reused),
        KV_VERSION when the peer runs another version.
        """
        path = _path(pid, descriptor)
        try:
            # Looked at before it is opened: opening a pipe or a device of an
            # unrelated process that got this pid could block or have effects.
            if not os.readlink(path).startswith(f"/memfd:{_NAME}"):
                raise _other_incarnation(pid, "its descriptor is no Segue memory file")
            access = os.O_RDWR if writable else os.O_RDONLY
            opened = os.open(path, access | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError as error:
            raise TransferError(
                f"process {pid} does not let us read its KV memory ({error.strerror}); "
                "run the workers of one host as one user, or use another transfer backend",
                reason="KV_PEER_DENIED",
            ) from error
        except OSError as error:
            raise _peer_gone(pid, descriptor) from error
        try:
            mapping = _map_verified(opened, pid, incarnation, writable)
            return cls(mapping, os.fstat(opened), pid=pid, descriptor=descriptor, owned=False)
        finally:
            os.close(opened)

    def freeze(self) -> None:
        """Let nobody write any more; the kernel refuses it to the owner as well.

        Raises InternalError while an array made from the views is in use.
        """
        slots, data_bytes = len(self.generations), len(self.data)
        self._release_views()
        try:
            self._mapping.close()
        except BufferError as error:
            raise InternalError("somebody still views the memory that is to be frozen") from error
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        self._view(mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ), slots, data_bytes)

    def open_again(self) -> int:
        """A descriptor with a file description, and therefore locks, of its own; the caller's.

        Raises TransferError (KV_PEER_GONE) once the owner has closed the file or ended.
        """
        try:
            opened = os.open(_path(self.pid, self.descriptor), os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _peer_gone(self.pid, self.descriptor) from error
        if _file_number(os.fstat(opened)) != self._file:
            os.close(opened)
            raise _peer_gone(self.pid, self.descriptor)
        return opened

    def require_owner_alive(self) -> None:
        """Raise TransferError (KV_PEER_GONE) once the owner has closed the file or ended.

        The bytes would still be readable, but nobody stands behind them, and
        holding the mapping keeps the dead process' memory allocated.
        """
        try:
            found = _file_number(os.stat(_path(self.pid, self.descriptor)))
        except OSError as error:
            raise _peer_gone(self.pid, self.descriptor) from error
        if found != self._file:
            raise _peer_gone(self.pid, self.descriptor)

    @property
    def header(self) -> bytes:
        """What the first HEADER_BYTES of the file must be."""
        slots, data_bytes = len(self.generations), len(self.data)
        return _HEADER.pack(_MAGIC, VERSION, slots, self.incarnation, data_bytes)

    def require_intact(self) -> None:
        """Raise TransferError (KV_INCARNATION) if the header in memory was overwritten."""
        if self._mapping[:HEADER_BYTES] != self.header:
            raise _other_incarnation(self.pid, "its memory file's header was overwritten")

    def close(self) -> None:
        """Give the mapping up; may be called again.

        Arrays made from the views stay usable: the mapping itself goes with
        the last of them.
        """
        if self._closed:
            return
        self._closed = True
        if self._owned and self.descriptor != NO_DESCRIPTOR:
            os.close(self.descriptor)
        self._release_views()
        with contextlib.suppress(BufferError):
            self._mapping.close()

    def _view(self, mapping: mmap.mmap, slots: int, data_bytes: int) -> None:
        self._mapping = mapping
        self.generations: npt.NDArray[np.uint64] = np.frombuffer(
            mapping, np.dtype("<u8"), count=slots, offset=_HEADER.size
        )
        self.layers_done: npt.NDArray[np.uint64] = np.frombuffer(
            mapping, np.dtype("<u8"), count=slots, offset=_HEADER.size + 8 * slots
        )
        self.data: npt.NDArray[np.uint8] = np.frombuffer(
            mapping, np.uint8, count=data_bytes, offset=_data_offset(slots)
        )

    def _release_views(self) -> None:
        self.generations = self.layers_done = np.empty(0, np.uint64)
        self.data = np.empty(0, np.uint8)


def _map_verified(opened: int, pid: int, incarnation: bytes, writable: bool) -> mmap.mmap:
    """A mapping whose magic, version, size, seals and incarnation are right."""
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode) or status.st_size < _HEADER.size:
        raise _other_incarnation(pid, "its descriptor is no Segue memory file")
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    mapping = mmap.mmap(opened, 0, access=access)
    magic, version, slots, found, data_bytes = _HEADER.unpack_from(mapping)
    if magic != _MAGIC:
        raise _other_incarnation(pid, "its descriptor is no Segue memory file")
    if version != VERSION:
        raise TransferError(
            f"process {pid} writes KV memory version {version}, version {VERSION} was expected; "
            "run both workers with the same release",
            reason="KV_VERSION",
        )
    if found != incarnation:
        raise _other_incarnation(pid, "it has another incarnation")
    if status.st_size != _data_offset(slots) + data_bytes:
        raise _other_incarnation(pid, "its size contradicts its header")
    if fcntl.fcntl(opened, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise _other_incarnation(pid, "it is not sealed")
    return mapping


def _data_offset(slots: int) -> int:
    end = _HEADER.size + 2 * 8 * slots
    return -(-end // PAGE_BYTES) * PAGE_BYTES


def _path(pid: int, descriptor: int) -> str:
    return f"/proc/{pid}/fd/{descriptor}"


def _file_number(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _peer_gone(pid: int, descriptor: int) -> TransferError:
    return TransferError(
        f"process {pid} no longer holds KV memory file {descriptor}: it ended, closed it, or runs "
        "on another host; prefill again",
        reason="KV_PEER_GONE",
    )


def _other_incarnation(pid: int, what: str) -> TransferError:
    return TransferError(
        f"process {pid} is not the one that issued the ticket: {what}; prefill again",
        reason="KV_INCARNATION",
    )


def header_incarnation(header: bytes) -> bytes:
    """Whose file begins with these HEADER_BYTES; b"" if it is none of this version."""
    magic, version, _, incarnation, _ = _HEADER.unpack(header)
    found: bytes = incarnation
    return found if (magic, version) == (_MAGIC, VERSION) else b""
