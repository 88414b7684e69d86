"""Build the text corpus from Debian packages whose text may be used and redistributed freely.

Nothing is installed and no text is committed: the packages are fetched with
``apt-get download`` into a scratch folder, unpacked there, and reduced to clean paragraphs of
English prose. Each line of the resulting ``corpus.jsonl`` is one document::

    {"source": "...", "split": "train" | "held_out", "text": "paragraph\\n\\nparagraph..."}

Usage: ``python corpus.py SCRATCH``
"""

from __future__ import annotations

import argparse
import gzip
import html.parser
import json
import re
import struct
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_EVERY = 40
"""Every 40th document is kept out of training, for the held-out loss."""

TYPOGRAPHY = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u2013": "-",
        "\u2014": "--",
        "\u2026": "...",
        "\u00a0": " ",
        "\u00b6": " ",
        "{": "",
        "}": "",  # cross-reference marks of the Jargon File
    }
)


@dataclass(frozen=True)
class Source:
    """One package, its licence, and how to read its documents."""

    name: str
    package: str
    licence: str
    documents: Callable[[Path], Iterator[list[str]]]
    """Yields each document as a list of raw paragraphs."""


class _Paragraphs(html.parser.HTMLParser):
    """Collects the text of ``<p>`` elements; headings, lists, tables and code are left out."""

    SKIPPED = ("script", "style", "pre", "table", "nav", "footer")

    def __init__(self) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._text: list[str] | None = None
        self._skipping = 0

    def _close(self) -> None:
        if self._text is not None:
            self.paragraphs.append("".join(self._text))
        self._text = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.SKIPPED:
            self._skipping += 1
        if tag in self.SKIPPED or tag in ("ul", "ol", "div", "h1", "h2", "h3", "dl", "p"):
            self._close()
        if tag == "p":
            self._text = []

    def handle_endtag(self, tag: str) -> None:
        if tag in self.SKIPPED and self._skipping:
            self._skipping -= 1
        if tag == "p":
            self._close()

    def handle_data(self, data: str) -> None:
        if self._text is not None and not self._skipping:
            self._text.append(data)


def _html_documents(*patterns: str) -> Callable[[Path], Iterator[list[str]]]:
    """Documents of HTML pages matching ``patterns`` (``print.html`` repeats a whole book)."""

    def documents(root: Path) -> Iterator[list[str]]:
        for pattern in patterns:
            for page in sorted(root.glob(pattern)):
                if page.name == "print.html" or not page.is_file():
                    continue
                parser = _Paragraphs()
                parser.feed(page.read_text(encoding="utf-8", errors="ignore"))
                yield parser.paragraphs

    return documents


def _gzip_documents(pattern: str) -> Callable[[Path], Iterator[list[str]]]:
    """A gzip-compressed plain text, cut into documents of ten paragraphs."""

    def documents(root: Path) -> Iterator[list[str]]:
        archive = next(root.glob(pattern))
        text = gzip.decompress(archive.read_bytes()).decode("utf-8", "replace")
        paragraphs = re.split(r"\n\s*\n", text)
        for start in range(0, len(paragraphs), 10):
            yield paragraphs[start : start + 10]

    return documents


def _austen_lines(database: bytes) -> Iterator[str]:
    """Strings of an R lazy-load database: zlib blocks holding serialized character vectors.

    A string (CHARSXP) is a four-byte flag word ending in type 9, a big-endian length and the
    bytes. R writes strings of a vector one after the other, so a plain walk finds them all.
    """
    while len(database) > 4:
        # Each block: u32 plain length, then a zlib stream that knows its own end.
        stream = zlib.decompressobj()
        block = stream.decompress(database[4:])
        database = stream.unused_data
        for match in re.finditer(rb"\x00[\x00-\x04][\x00-\xff]\x09(....)", block, re.DOTALL):
            (length,) = struct.unpack(">I", match.group(1))
            if length <= 200:
                yield block[match.end() : match.end() + length].decode("utf-8", "ignore")


def _austen_documents(root: Path) -> Iterator[list[str]]:
    """One document per chapter of the six novels."""
    database = next(root.glob("usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"))
    chapter: list[str] = [""]
    for line in _austen_lines(database.read_bytes()):
        if re.match(r"(CHAPTER|Chapter|VOLUME|Volume)\b", line):
            yield chapter
            chapter = [""]
        elif not line.strip():
            chapter.append("")
        else:
            chapter[-1] += line.replace("_", "") + "\n"  # underscores mark italics
    yield chapter


_DOC = "usr/share/doc"
SOURCES = (
    Source(
        "austen",
        "r-cran-janeaustenr",
        "public domain (Jane Austen; package: MIT)",
        _austen_documents,
    ),
    Source(
        "devil",
        "dict-devil",
        "public domain (Ambrose Bierce, 1911)",
        _gzip_documents("usr/share/dictd/devil.dict.dz"),
    ),
    Source(
        "jargon",
        "jargon-text",
        "public domain",
        _gzip_documents(f"{_DOC}/jargon-text/jargon.txt.gz"),
    ),
    Source("sqlite", "sqlite3-doc", "public domain", _html_documents(f"{_DOC}/**/*.html")),
    Source(
        "rust",
        "rust-doc",
        "MIT or Apache-2.0",
        _html_documents(
            *(
                f"{_DOC}/rust-doc/html/{book}/**/*.html"
                for book in ("book", "embedded-book", "nomicon", "rust-by-example", "edition-guide")
            )
        ),
    ),
    Source(
        "django",
        "python-django-doc",
        "BSD-3-Clause",
        _html_documents(
            *(
                f"{_DOC}/python-django-doc/html/{part}/**/*.html"
                for part in ("intro", "topics", "howto", "internals", "misc", "faq")
            )
        ),
    ),
    Source(
        "python",
        "python3.11-doc",
        "PSF-2.0",
        _html_documents(
            *(
                f"{_DOC}/python3.11/html/{part}/**/*.html"
                for part in (
                    "tutorial",
                    "howto",
                    "faq",
                    "using",
                    "library",
                    "reference",
                    "whatsnew",
                )
            )
        ),
    ),
)


def clean(paragraph: str) -> str | None:
    """The paragraph on one line, or None if it is not plain English prose."""
    text = re.sub(r"\s+", " ", paragraph.translate(TYPOGRAPHY)).strip()
    if len(text) < 60 or not text.isascii() or not (text[0].isupper() or text[0] == '"'):
        return None
    if "_" in text or "()" in text or text[-1] not in ".!?\"'":  # code, or leading up to code
        return None
    letters = sum(character.isalpha() or character == " " for character in text)
    odd = sum(character in "<>[]()=/\\|@#*+~^`" for character in text)
    return text if letters >= 0.9 * len(text) and odd <= 0.02 * len(text) else None


def fetch(package: str, scratch: Path) -> Path:
    """Download and unpack a Debian package below ``scratch``, once."""
    root = scratch / "packages" / package
    if not root.is_dir():
        downloads = scratch / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=downloads, check=True)
        archive = next(downloads.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(archive), str(root)], check=True)
    return root


def build(scratch: Path) -> Path:
    """Write ``corpus.jsonl`` below ``scratch``; prints what each source contributed."""
    target = scratch / "corpus.jsonl"
    characters: Counter[str] = Counter()
    seen: set[str] = set()
    number = 0
    with target.open("w", encoding="utf-8") as output:
        for source in SOURCES:
            for raw in source.documents(fetch(source.package, scratch)):
                paragraphs = []
                for text in filter(None, map(clean, raw)):
                    if text not in seen:  # manuals repeat notes and boilerplate
                        seen.add(text)
                        paragraphs.append(text)
                document = "\n\n".join(paragraphs)
                if len(document) < 300:
                    continue
                number += 1
                split = "held_out" if number % HELD_OUT_EVERY == 0 else "train"
                characters[source.name] += len(document)
                output.write(
                    json.dumps({"source": source.name, "split": split, "text": document}) + "\n"
                )
    for source in SOURCES:
        print(f"{source.name:8} {characters[source.name] / 1e6:6.2f} MB  {source.licence}")
    print(f"{'total':8} {characters.total() / 1e6:6.2f} MB  {number} documents")
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path, help="folder for downloads and the corpus")
    build(parser.parse_args().scratch)
