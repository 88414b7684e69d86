"""Shared memory: what is attached is what the ticket's process made, or an error says why not."""

from __future__ import annotations

import os
import struct
from contextlib import closing

import numpy as np
import pytest

from segue_cloud.kv.memory import NO_DESCRIPTOR, PAGE_BYTES, MemoryFile
from segue_protocol.errors import InvalidRequest, TransferError


@pytest.fixture
def memory():
    with_memory = MemoryFile.create(slots=3, data_bytes=10_000)
    yield with_memory
    with_memory.close()


def _attach(memory: MemoryFile, **other) -> MemoryFile:
    asked = {"pid": memory.pid, "descriptor": memory.descriptor, "incarnation": memory.incarnation}
    return MemoryFile.attach(**{**asked, **other})


def test_attached_memory_shows_the_same_bytes_and_cannot_be_written(memory) -> None:
    attached = _attach(memory)
    memory.data[9_999] = 7
    memory.generations[2] = 2**63
    assert (attached.data[9_999], attached.generations[2]) == (7, 2**63)
    with pytest.raises(ValueError, match="read-only"):
        attached.data[0] = 1
    attached.close()


def test_data_start_at_a_page(memory) -> None:
    assert memory.data.ctypes.data % PAGE_BYTES == 0
    assert not memory.data.any()


def test_close_may_be_repeated_and_views_outlive_it() -> None:
    memory = MemoryFile.create(slots=1, data_bytes=16)
    view = memory.data[:4]
    memory.close()
    memory.close()
    view[:] = 3
    assert view.sum() == 12


def test_a_closed_file_is_a_peer_that_is_gone(memory) -> None:
    other = MemoryFile.create(slots=1, data_bytes=1)
    attached = _attach(other)
    attached.require_owner_alive()
    descriptor, incarnation = other.descriptor, other.incarnation
    other.close()
    with pytest.raises(TransferError) as raised:
        attached.require_owner_alive()
    assert raised.value.reason == "KV_PEER_GONE"
    attached.close()
    with pytest.raises(TransferError) as raised:
        MemoryFile.attach(os.getpid(), descriptor, incarnation)
    assert raised.value.reason == "KV_PEER_GONE"


def test_another_incarnation_is_refused(memory) -> None:
    with pytest.raises(TransferError, match="another incarnation") as raised:
        _attach(memory, incarnation=bytes(16))
    assert raised.value.reason == "KV_INCARNATION"


def test_other_files_of_a_process_with_a_reused_pid_are_not_opened(memory, tmp_path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(1000))
    read, write = os.pipe()
    opened = os.open(plain, os.O_RDONLY)
    try:
        for descriptor in (read, opened):
            with pytest.raises(TransferError, match="no Segue memory file") as raised:
                _attach(memory, descriptor=descriptor)
            assert raised.value.reason == "KV_INCARNATION"
    finally:
        for descriptor in (read, write, opened):
            os.close(descriptor)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "KV_INCARNATION"),
        (bytes(PAGE_BYTES), "KV_INCARNATION"),
        (struct.pack("<8sII16sQ", b"SEGUE-KV", 99, 1, bytes(16), 1), "KV_VERSION"),
        # Right in all but the size, and right in all but the seals.
        (struct.pack("<8sII16sQ", b"SEGUE-KV", 2, 1, bytes(16), 5), "KV_INCARNATION"),
        (
            struct.pack("<8sII16sQ", b"SEGUE-KV", 2, 1, bytes(16), 1).ljust(PAGE_BYTES + 1, b"\0"),
            "KV_INCARNATION",
        ),
    ],
)
def test_a_file_that_only_looks_like_ours_is_refused(content: bytes, reason: str) -> None:
    descriptor = os.memfd_create("segue-kv")
    try:
        os.write(descriptor, content)
        with pytest.raises(TransferError) as raised:
            MemoryFile.attach(os.getpid(), descriptor, bytes(16))
        assert raised.value.reason == reason
    finally:
        os.close(descriptor)


def test_a_sender_cannot_pull_the_memory_from_under_a_reader(memory) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(memory.descriptor, 0)


def test_an_overwritten_header_is_found(memory) -> None:
    np.frombuffer(memory._mapping, np.uint8, count=8)[:] = 0
    with pytest.raises(TransferError, match="overwritten"):
        memory.require_intact()


@pytest.mark.parametrize(
    "sizes", [{"slots": 0, "data_bytes": 1}, {"slots": 1, "data_bytes": 0}], ids=["slots", "bytes"]
)
def test_empty_files_are_refused(sizes) -> None:
    with pytest.raises(InvalidRequest, match="at least one"):
        MemoryFile.create(**sizes)
    with pytest.raises(InvalidRequest, match="16 bytes"):
        MemoryFile.create(slots=1, data_bytes=1, incarnation=b"short")


def test_memory_that_nobody_maps_is_the_same_without_a_file() -> None:
    with closing(MemoryFile.create(slots=2, data_bytes=4096, shared=False)) as memory:
        assert not memory.data.any()
        memory.data[:] = 7
        memory.generations[1] = 3
        memory.require_intact()
        assert memory.descriptor == NO_DESCRIPTOR
        with pytest.raises(TransferError) as caught:
            MemoryFile.attach(memory.pid, memory.descriptor, memory.incarnation)
        assert caught.value.reason == "KV_PEER_GONE"
    memory.close()
