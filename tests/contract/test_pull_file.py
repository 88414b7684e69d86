"""One file over real HTTP: cut, changed, wrong, refused, and whole in the end."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from segue_device.pull import pull
from segue_protocol.errors import (
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    SegueError,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from tests.web_server import Offer, WebServer, web_server

# More than a socket's buffers hold, and no multiple of a block.
CONTENT = random.Random(5).randbytes(3_000_017)
OTHER = random.Random(6).randbytes(3_000_017)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "model.gguf"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        server.offers[f"/{NAME}"] = Offer(CONTENT)
        yield server


@pytest.fixture
def offer(web: WebServer) -> Offer:
    return web.offers[f"/{NAME}"]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def ranges(web: WebServer) -> list[str | None]:
    return [asked[1] for asked in web.asked]


@pytest.mark.parametrize("sha256", [None, SHA256, SHA256.upper()])
def test_a_whole_file(web: WebServer, tmp_path: Path, sha256: str | None) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = pull(
        f"{web.url}/{NAME}",
        tmp_path / "deep" / "models",
        sha256=sha256,
        on_progress=lambda *progress: told.append(progress),
    )
    assert path == tmp_path / "deep" / "models" / NAME
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == [NAME]
    assert told[0] == (NAME, 0, len(CONTENT))
    assert told[-1] == (NAME, len(CONTENT), len(CONTENT))
    assert told == sorted(told)


@pytest.mark.parametrize("sha256", [None, SHA256])
def test_a_cut_connection_is_taken_up_at_once(
    web: WebServer, offer: Offer, tmp_path: Path, sha256: str | None
) -> None:
    offer.cuts = [1_000_000, 500_000]
    assert pull(f"{web.url}/{NAME}", tmp_path, sha256=sha256).read_bytes() == CONTENT
    assert web.asked == [
        (f"/{NAME}", None, None),
        (f"/{NAME}", "bytes=1000000-", '"v1"'),
        (f"/{NAME}", "bytes=1500000-", '"v1"'),
    ]
    assert names(tmp_path) == [NAME]


def interrupted(web: WebServer, offer: Offer, directory: Path, sha256: str | None = None) -> None:
    """A download that broke off behind 1,000,000 bytes and left its part."""
    offer.cuts = [1_000_000, 0]
    with pytest.raises(Unavailable, match="run it again"):
        pull(f"{web.url}/{NAME}", directory, sha256=sha256)
    assert (directory / f"{NAME}.part").stat().st_size == 1_000_000
    assert not (directory / NAME).exists()
    web.asked.clear()
    assert not offer.cuts


def test_a_later_run_goes_on(web: WebServer, offer: Offer, tmp_path: Path) -> None:
    interrupted(web, offer, tmp_path)
    assert pull(f"{web.url}/{NAME}", tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert ranges(web) == ["bytes=1000000-"]
    assert names(tmp_path) == [NAME]


def test_a_later_run_with_a_date_needs_the_digest(
    web: WebServer, offer: Offer, tmp_path: Path
) -> None:
    offer.etag, offer.last_modified = None, "Tue, 01 Jul 2025 10:00:00 GMT"
    interrupted(web, offer, tmp_path, SHA256)
    assert pull(f"{web.url}/{NAME}", tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert web.asked == [(f"/{NAME}", "bytes=1000000-", offer.last_modified)]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_strong_validator_it_begins_again(
    web: WebServer, offer: Offer, tmp_path: Path, etag: str | None
) -> None:
    offer.etag, offer.last_modified = etag, "Tue, 01 Jul 2025 10:00:00 GMT"
    offer.cuts = [1_000_000]
    with pytest.raises(Unavailable, match="run it again"):
        pull(f"{web.url}/{NAME}", tmp_path)
    assert names(tmp_path) == []
    assert pull(f"{web.url}/{NAME}", tmp_path).read_bytes() == CONTENT
    assert ranges(web) == [None, None]


@pytest.mark.parametrize("obeys_if_range", [True, False])
def test_a_changed_file_begins_again(
    web: WebServer, offer: Offer, tmp_path: Path, obeys_if_range: bool
) -> None:
    interrupted(web, offer, tmp_path)
    offer.content, offer.etag, offer.obeys_if_range = OTHER, '"v2"', obeys_if_range
    assert pull(f"{web.url}/{NAME}", tmp_path).read_bytes() == OTHER
    assert names(tmp_path) == [NAME]


def test_a_server_without_ranges_begins_again(web: WebServer, offer: Offer, tmp_path: Path) -> None:
    interrupted(web, offer, tmp_path)
    offer.takes_ranges = False
    assert pull(f"{web.url}/{NAME}", tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert ranges(web) == ["bytes=1000000-"]


@pytest.mark.parametrize("shift", [-7, 7])
def test_another_range_than_asked_begins_again(
    web: WebServer, offer: Offer, tmp_path: Path, shift: int
) -> None:
    interrupted(web, offer, tmp_path)
    offer.range_shift = shift
    assert pull(f"{web.url}/{NAME}", tmp_path).read_bytes() == CONTENT
    assert ranges(web) == ["bytes=1000000-", None]


def test_a_file_that_became_shorter_begins_again(
    web: WebServer, offer: Offer, tmp_path: Path
) -> None:
    """416: nothing lies behind what is there."""
    interrupted(web, offer, tmp_path)
    offer.content = CONTENT[:999_999]
    assert pull(f"{web.url}/{NAME}", tmp_path).read_bytes() == CONTENT[:999_999]
    assert ranges(web) == ["bytes=1000000-", None]


def test_a_part_that_is_whole_is_not_fetched_again(
    web: WebServer, offer: Offer, tmp_path: Path
) -> None:
    interrupted(web, offer, tmp_path)
    offer.content = CONTENT[:1_000_000]
    assert pull(f"{web.url}/{NAME}", tmp_path).read_bytes() == CONTENT[:1_000_000]
    assert ranges(web) == ["bytes=1000000-"]


def test_a_part_of_another_address_is_not_used(
    web: WebServer, offer: Offer, tmp_path: Path
) -> None:
    interrupted(web, offer, tmp_path)
    web.offers[f"/other/{NAME}"] = Offer(OTHER)
    assert pull(f"{web.url}/other/{NAME}", tmp_path).read_bytes() == OTHER
    assert ranges(web) == [None]


@pytest.mark.parametrize("damage", ["", "{}", '{"origin": 1, "validator": 2}', None])
def test_a_part_without_its_note_is_not_used(
    web: WebServer, offer: Offer, tmp_path: Path, damage: str | None
) -> None:
    interrupted(web, offer, tmp_path)
    note = tmp_path / f"{NAME}.part.json"
    note.unlink() if damage is None else note.write_text(damage)
    assert pull(f"{web.url}/{NAME}", tmp_path).read_bytes() == CONTENT
    assert ranges(web) == [None]


def test_the_note_holds_no_secret_of_the_address(
    web: WebServer, offer: Offer, tmp_path: Path
) -> None:
    web.offers[f"/{NAME}?token=s3cret"] = offer
    offer.cuts = [1000, 0]
    with pytest.raises(Unavailable) as broken:
        pull(f"{web.url}/{NAME}?token=s3cret", tmp_path)
    assert "s3cret" not in broken.value.message
    assert "s3cret" not in (tmp_path / f"{NAME}.part.json").read_text()


def test_wrong_bytes_are_not_kept(web: WebServer, offer: Offer, tmp_path: Path) -> None:
    offer.content = OTHER
    with pytest.raises(InvalidRequest, match=f"expected .*{SHA256}") as refused:
        pull(f"{web.url}/{NAME}", tmp_path, sha256=SHA256)
    assert refused.value.reason == "DIGEST_MISMATCH"
    assert names(tmp_path) == []


def test_wrong_bytes_behind_a_good_part_are_not_kept(
    web: WebServer, offer: Offer, tmp_path: Path
) -> None:
    """The digest is that of the whole file, also when two runs brought it."""
    interrupted(web, offer, tmp_path)
    offer.content = OTHER  # under the same validator
    with pytest.raises(InvalidRequest, match="nothing of it was kept"):
        pull(f"{web.url}/{NAME}", tmp_path, sha256=SHA256)
    assert names(tmp_path) == []


def test_a_server_that_cuts_every_connection(web: WebServer, offer: Offer, tmp_path: Path) -> None:
    offer.cuts = [1000] * 100
    with pytest.raises(Unavailable):
        pull(f"{web.url}/{NAME}", tmp_path)
    assert len(web.asked) == 10


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthenticated),
        (403, PermissionDenied),
        (404, NotFound),
        (410, NotFound),
        (416, InvalidRequest),
        (418, InvalidRequest),
        (429, Overloaded),
        (500, Unavailable),
        (503, Unavailable),
        (206, InvalidRequest),
    ],
)
def test_statuses(
    web: WebServer, offer: Offer, tmp_path: Path, status: int, kind: type[SegueError]
) -> None:
    offer.status, offer.content = status, b"<html>sorry</html>"
    with pytest.raises(kind, match=f"{NAME} answers {status}"):
        pull(f"{web.url}/{NAME}", tmp_path / "models")
    assert len(web.asked) == 1
    assert not (tmp_path / "models").exists()


def test_an_error_in_the_middle_leaves_the_part(
    web: WebServer, offer: Offer, tmp_path: Path
) -> None:
    interrupted(web, offer, tmp_path)
    offer.status = 500
    with pytest.raises(Unavailable, match="answers 500"):
        pull(f"{web.url}/{NAME}", tmp_path)
    offer.status = 200
    web.asked.clear()
    assert pull(f"{web.url}/{NAME}", tmp_path).read_bytes() == CONTENT
    assert ranges(web) == ["bytes=1000000-"]


def test_a_file_of_unknown_length_needs_its_digest(
    web: WebServer, offer: Offer, tmp_path: Path
) -> None:
    offer.tells_length = False
    with pytest.raises(Unsupported, match="without its length"):
        pull(f"{web.url}/{NAME}", tmp_path)
    assert pull(f"{web.url}/{NAME}", tmp_path, sha256=SHA256).read_bytes() == CONTENT
    (tmp_path / NAME).unlink()
    offer.cuts = [1_000_000]
    with pytest.raises(InvalidRequest, match="nothing of it was kept"):
        pull(f"{web.url}/{NAME}", tmp_path, sha256=SHA256)


def test_an_encoding_that_was_not_asked_for(web: WebServer, offer: Offer, tmp_path: Path) -> None:
    offer.content_encoding = "gzip"
    with pytest.raises(ProtocolError, match="gzip-encoded"):
        pull(f"{web.url}/{NAME}", tmp_path)


def test_a_file_in_the_way(web: WebServer, tmp_path: Path) -> None:
    target = tmp_path / NAME
    target.write_bytes(OTHER)
    for sha256, advice in ((None, "--sha256"), (SHA256, "--force")):
        with pytest.raises(InvalidRequest, match=advice) as refused:
            pull(f"{web.url}/{NAME}", tmp_path, sha256=sha256)
        assert refused.value.reason == "TARGET_EXISTS"
    assert web.asked == []
    assert target.read_bytes() == OTHER
    assert pull(f"{web.url}/{NAME}", tmp_path, force=True) == target
    assert target.read_bytes() == CONTENT
    web.asked.clear()
    assert pull(f"{web.url}/{NAME}", tmp_path, sha256=SHA256) == target
    assert web.asked == []


def test_a_failure_leaves_the_old_file(web: WebServer, offer: Offer, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(OTHER)
    offer.cuts = [1000, 0]
    with pytest.raises(Unavailable):
        pull(f"{web.url}/{NAME}", tmp_path, force=True)
    assert (tmp_path / NAME).read_bytes() == OTHER


def test_no_space(web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 1_000_000}))
    with pytest.raises(InvalidRequest, match="1000000 are free") as refused:
        pull(f"{web.url}/{NAME}", tmp_path)
    assert refused.value.reason == "DISK_FULL"


def test_a_directory_that_cannot_be_written(web: WebServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match="cannot write to") as refused:
        pull(f"{web.url}/{NAME}", tmp_path / "file")
    assert refused.value.reason == "NOT_WRITABLE"


def test_nobody_is_there(tmp_path: Path) -> None:
    with web_server() as gone:
        url = gone.url
    with pytest.raises(Unavailable, match="cannot be read"):
        pull(f"{url}/{NAME}", tmp_path)


# ---- addresses


def test_redirects(web: WebServer, tmp_path: Path) -> None:
    web.offers["/latest.gguf"] = Offer(status=302, location="/moved")
    web.offers["/moved"] = Offer(status=307, location=f"{web.url}/{NAME}")
    assert pull(f"{web.url}/latest.gguf", tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == ["latest.gguf"]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://models.example/m.gguf", "redirects to http://models.example"),
        ("ftp://127.0.0.1/m.gguf", "redirects to ftp://127.0.0.1"),
        ("/again.gguf", "more than 5 times"),
    ],
)
def test_redirects_that_are_not_followed(
    web: WebServer, tmp_path: Path, location: str, message: str
) -> None:
    web.offers["/again.gguf"] = Offer(status=302, location=location)
    with pytest.raises(InvalidRequest, match=message):
        pull(f"{web.url}/again.gguf", tmp_path)


@pytest.mark.parametrize(
    "url", ["http://models.example/m.gguf", "ftp://models.example/m.gguf", "file:///m.gguf"]
)
def test_plain_text_is_for_loopback(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="expected https://") as refused:
        pull(url, tmp_path)
    assert refused.value.reason == "INSECURE_ADDRESS"


@pytest.mark.parametrize("name", ["", ".hidden", "a%2Fb", "..", "a%5Cb", "c%3Ab", "a%0Ab"])
def test_names_that_are_no_file_names(web: WebServer, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="no file name"):
        pull(f"{web.url}/{name}", tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, SHA256 + "00"])
def test_a_digest_that_is_none(tmp_path: Path, sha256: str) -> None:
    with pytest.raises(InvalidRequest, match="64 hexadecimal digits"):
        pull("https://models.example/m.gguf", tmp_path, sha256=sha256)


def test_without_httpx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    with pytest.raises(Unsupported, match=r"segue-device\[cli\]"):
        pull("https://models.example/m.gguf", tmp_path)
