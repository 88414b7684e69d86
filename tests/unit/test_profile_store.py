"""Profiles on disk: found for the same engine only, and never in the way of a start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from segue_device import DeviceProfile
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.profile_store import (
    ProfileKey,
    data_directory,
    find_profile,
    store_profile,
)
from segue_protocol.errors import InvalidRequest, Unsupported

PROFILE = DeviceProfile(0.01, 1 / 800, 2e-7, 0.05, 0.02)
KEY = ProfileKey("ab" * 32, "fp32", "OnnxEngine", {"chunk_tokens": 256, "threads": 1})


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGUE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data" / "profiles"


def test_what_is_stored_is_found(directory: Path) -> None:
    assert find_profile(KEY) is None
    path = store_profile(KEY, PROFILE)
    assert find_profile(KEY) == PROFILE
    newer = replace(PROFILE, decode_s=0.04)
    assert store_profile(KEY, newer) == path
    assert find_profile(KEY) == newer
    assert [each.name for each in directory.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change",
    [
        {"weights_digest": "cd" * 32},
        {"numerics": "int4"},
        {"engine": "LlamaCppEngine"},
        {"options": {"chunk_tokens": 256, "threads": 4}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_engine_is_another_profile(change: dict[str, object]) -> None:
    store_profile(KEY, PROFILE)
    assert find_profile(replace(KEY, **change)) is None


def test_a_key_holds_the_options_that_matter() -> None:
    class Engine(ReferenceDeviceEngine):
        def __init__(
            self, *, threads: int = 1, device: Path | None = None, max_context_tokens: int = 64
        ) -> None:
            super().__init__()

    key = ProfileKey.of(Engine(), {})
    assert key.options == {"device": None, "threads": 1}
    assert key.weights_digest == Engine().identity.weights_digest.hex()
    assert ProfileKey.of(Engine(), {"max_context_tokens": 8, "threads": 1}) == key
    assert ProfileKey.of(Engine(), {"threads": 2}) != key
    assert ProfileKey.of(Engine(), {"device": Path("gpu")}).options["device"] == "gpu"


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"format": 2}', "half", "unreadable"])
def test_a_damaged_profile_is_none(directory: Path, damage: str) -> None:
    path = store_profile(KEY, PROFILE)
    if damage == "half":
        damage = path.read_text()[:50]
    elif damage == "unreadable":
        stored = json.loads(path.read_text())
        stored["profile"]["decode_s"] = 0
        damage = json.dumps(stored)
    path.write_text(damage)
    assert find_profile(KEY) is None
    store_profile(KEY, PROFILE)
    assert find_profile(KEY) == PROFILE


def test_weights_without_a_digest_are_not_stored(directory: Path) -> None:
    with pytest.raises(InvalidRequest, match="no digest"):
        store_profile(replace(KEY, weights_digest=""), PROFILE)
    assert not directory.exists()


def test_a_directory_that_cannot_be_written(directory: Path) -> None:
    directory.parent.parent.mkdir(exist_ok=True)
    directory.parent.write_text("a file is in the way")
    with pytest.raises(InvalidRequest, match="SEGUE_DATA_DIR") as refused:
        store_profile(KEY, PROFILE)
    assert refused.value.reason == "NOT_WRITABLE"
    assert find_profile(KEY) is None


def test_without_platformdirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "platformdirs", None)
    store_profile(KEY, PROFILE)  # a named directory needs no library
    monkeypatch.delenv("SEGUE_DATA_DIR")
    with pytest.raises(Unsupported, match=r"segue-device\[cli\]"):
        data_directory()
    assert find_profile(KEY) is None
