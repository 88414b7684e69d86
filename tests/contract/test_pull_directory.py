"""Whole directories, from a web server by their list and from the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segue_device.pull import LISTING_NAME, pull, write_listing
from segue_protocol.errors import InvalidRequest, NotFound, Unavailable
from tests.web_server import Offer, WebServer, web_server

FILES = {
    "model.onnx": b"graph" * 1000,
    "model.onnx.data": b"weights" * 50_000,
    "deep/er/config.json": b"{}",
}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source" / "tiny"
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def web(source: Path) -> Iterator[WebServer]:
    """The source with its list, as a plain web server would offer it."""
    listing = write_listing(source)
    with web_server() as server:
        for name, content in FILES.items():
            server.offers[f"/models/tiny/{name}"] = Offer(content)
        server.offers[f"/models/tiny/{LISTING_NAME}"] = Offer(listing.read_bytes())
        yield server


def listing_url(web: WebServer) -> str:
    return f"{web.url}/models/tiny/{LISTING_NAME}"


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_directory_from_the_web(web: WebServer, source: Path, tmp_path: Path) -> None:
    told: list[str] = []
    path = pull(listing_url(web), tmp_path / "to", on_progress=lambda name, *_: told.append(name))
    assert path == tmp_path / "to" / "tiny"
    assert contents(path) == contents(source)
    assert set(told) == {"model.onnx", "model.onnx.data", "config.json"}
    assert names(path.parent) == ["tiny"]


def test_a_second_pull_fetches_the_list_only(web: WebServer, tmp_path: Path) -> None:
    pull(listing_url(web), tmp_path / "to")
    web.asked.clear()
    pull(listing_url(web), tmp_path / "to")
    assert [asked[0] for asked in web.asked] == [f"/models/tiny/{LISTING_NAME}"]


def test_a_pull_goes_on_where_it_broke_off(web: WebServer, source: Path, tmp_path: Path) -> None:
    web.offers["/models/tiny/model.onnx.data"].cuts = [100_000, 0]
    with pytest.raises(Unavailable):
        pull(listing_url(web), tmp_path / "to")
    assert names(tmp_path / "to") == ["tiny.part"]
    web.asked.clear()
    assert contents(pull(listing_url(web), tmp_path / "to")) == contents(source)
    assert web.asked[1:] == [("/models/tiny/model.onnx.data", "bytes=100000-", '"v1"')]
    assert names(tmp_path / "to") == ["tiny"]


def test_what_an_older_list_left_does_not_come_along(
    web: WebServer, source: Path, tmp_path: Path
) -> None:
    web.offers["/models/tiny/model.onnx.data"].cuts = [0]
    with pytest.raises(Unavailable):
        pull(listing_url(web), tmp_path / "to")
    (source / "deep" / "er" / "config.json").unlink()
    web.offers[f"/models/tiny/{LISTING_NAME}"].content = write_listing(source).read_bytes()
    path = pull(listing_url(web), tmp_path / "to")
    assert contents(path) == contents(source)
    assert not (path / "deep").exists()


def test_the_digest_of_the_list_covers_everything(web: WebServer, tmp_path: Path) -> None:
    listing = web.offers[f"/models/tiny/{LISTING_NAME}"].content
    sha256 = hashlib.sha256(listing).hexdigest()
    with pytest.raises(InvalidRequest, match="nothing of it was kept"):
        pull(listing_url(web), tmp_path / "to", sha256="0" * 64)
    assert not (tmp_path / "to").exists()
    web.offers["/models/tiny/model.onnx"].content = b"grapf" * 1000
    with pytest.raises(InvalidRequest, match=r"model\.onnx came with 5000 bytes") as refused:
        pull(listing_url(web), tmp_path / "to", sha256=sha256)
    assert refused.value.reason == "DIGEST_MISMATCH"
    web.offers["/models/tiny/model.onnx"].content = b"longer than listed" * 1000
    with pytest.raises(InvalidRequest, match="expected 5000 as listed"):
        pull(listing_url(web), tmp_path / "to", sha256=sha256)
    assert not (tmp_path / "to" / "tiny").exists()


def test_a_directory_in_the_way(web: WebServer, source: Path, tmp_path: Path) -> None:
    precious = tmp_path / "to" / "tiny" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("irreplaceable")
    with pytest.raises(InvalidRequest, match="--force"):
        pull(listing_url(web), tmp_path / "to")
    assert precious.read_text() == "irreplaceable"
    assert names(tmp_path / "to") == ["tiny"]
    path = pull(listing_url(web), tmp_path / "to", force=True)
    assert contents(path) == contents(source)
    assert names(tmp_path / "to") == ["tiny"]


def test_a_missing_file_is_named(web: WebServer, tmp_path: Path) -> None:
    del web.offers["/models/tiny/model.onnx"]
    with pytest.raises(NotFound, match=r"/models/tiny/model\.onnx answers 404"):
        pull(listing_url(web), tmp_path / "to")


ENTRY = {"path": "a", "size_bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "listing",
    [
        b"no json",
        [],
        {"format": 2, "files": [ENTRY]},
        {"format": 1},
        {"format": 1, "files": []},
        {"format": 1, "files": ["a"]},
        {"format": 1, "files": [ENTRY, ENTRY]},
        {"format": 1, "files": [ENTRY, ENTRY | {"path": "A"}]},
        *(
            {"format": 1, "files": [ENTRY | change]}
            for change in (
                {"path": "../a"},
                {"path": "/etc/a"},
                {"path": "a/../../b"},
                {"path": "C:/a"},
                {"path": "a\\b"},
                {"path": ""},
                {"path": LISTING_NAME},
                {"size_bytes": -1},
                {"size_bytes": "1"},
                {"sha256": "zz"},
                {"owner": "root"},
            )
        ),
    ],
    ids=str,
)
def test_lists_that_are_refused(web: WebServer, tmp_path: Path, listing: Any) -> None:
    content = listing if isinstance(listing, bytes) else json.dumps(listing).encode()
    web.offers[f"/models/tiny/{LISTING_NAME}"].content = content
    with pytest.raises(InvalidRequest, match=LISTING_NAME):
        pull(listing_url(web), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_list_without_an_end(web: WebServer, tmp_path: Path) -> None:
    web.offers[f"/models/tiny/{LISTING_NAME}"].content = b" " * (5 << 20)
    with pytest.raises(InvalidRequest, match="larger than"):
        pull(listing_url(web), tmp_path / "to")


# ---- from the disk


def test_a_local_file(source: Path, tmp_path: Path) -> None:
    file, to = source / "model.onnx.data", tmp_path / "to"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(InvalidRequest, match="nothing of it was kept"):
        pull(file, to, sha256="0" * 64)
    path = pull(file, to, sha256=sha256)
    assert path.read_bytes() == file.read_bytes()
    assert names(to) == ["model.onnx.data"]
    assert pull(file, to) == path
    path.write_bytes(b"something else")
    with pytest.raises(InvalidRequest, match="another content"):
        pull(file, to)
    assert pull(file, to, force=True).read_bytes() == file.read_bytes()
    assert pull(file, file.parent) == file  # where it is already


@pytest.mark.parametrize("listed", [True, False])
def test_a_local_directory(source: Path, tmp_path: Path, listed: bool) -> None:
    if listed:
        write_listing(source)
    path = pull(source, tmp_path / "to")
    write_listing(source)  # the same list that came along
    assert contents(path) == contents(source)
    assert pull(source, tmp_path / "to") == path
    (path / "model.onnx").write_bytes(b"changed")
    with pytest.raises(InvalidRequest, match="another content"):
        pull(source, tmp_path / "to")


def test_a_local_directory_that_is_not_what_its_list_says(source: Path, tmp_path: Path) -> None:
    write_listing(source)
    (source / "model.onnx").write_bytes(b"bit rot")
    with pytest.raises(InvalidRequest, match=r"model\.onnx came with"):
        pull(source, tmp_path / "to")
    assert not (tmp_path / "to" / "tiny").exists()


def test_local_paths_without_anything(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no"):
        pull(tmp_path / "nowhere", tmp_path / "to")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="holds no file"):
        pull(tmp_path / "empty", tmp_path / "to")
    with pytest.raises(NotFound, match="holds no file"):
        write_listing(tmp_path / "empty")
