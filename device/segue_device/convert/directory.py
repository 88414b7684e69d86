"""What every conversion does around its own work.

A converted directory is made once, appears whole or not at all, never takes
the place of something else, and holds the tokenizer and the manifest.
"""

from __future__ import annotations

import filecmp
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segue_device.engines.checks import missing_extra
from segue_device.engines.manifest import NAME as MANIFEST_NAME
from segue_device.engines.manifest import Manifest
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.model_files import read_json, read_weights_digest

PRECISIONS = ("fp32", "int8", "int4")

_REQUIRED_FILES = ("config.json", "tokenizer.json")
_COPIED_FILES = (
    *_REQUIRED_FILES,
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)


@dataclass(frozen=True, slots=True)
class Source:
    """What is converted, and how.

    ``weights_digest`` is the hex SHA-256 over the safetensors files of
    ``directory``; ``precision`` is one of `PRECISIONS`.
    """

    directory: Path
    weights_digest: str
    precision: str

    def manifest(self, *, max_context_tokens: int, head_dim: int) -> Manifest:
        """The manifest of what is made from this source."""
        return Manifest(
            model=self.directory.name,
            weights_digest=self.weights_digest,
            numerics=self.precision,
            max_context_tokens=max_context_tokens,
            head_dim=head_dim,
        )


Build = Callable[[Source, Path, Path], Manifest]
"""Writes the weights of a source into an empty directory, with a scratch directory beside it."""


def make_model_directory(
    hf_dir: str | Path,
    out_dir: str | Path,
    *,
    precision: str,
    product: str,
    modules: Sequence[str],
    build: Build,
) -> Path:
    """Have `build` convert `hf_dir` into `out_dir` and return `out_dir`.

    Does nothing when `out_dir` was made from the same weights, tokenizer and
    configuration already. Otherwise `out_dir` appears whole or not at all: the
    work happens beside it, under a name of its own. `product` is the file that
    tells the format; `modules` must be importable before the work begins.

    Raises NotFound or InvalidRequest when `hf_dir` is no model directory,
    `out_dir` holds something else or `precision` is unknown; Unsupported
    without the convert extra; and what `build` raises.
    """
    directory, target = Path(hf_dir).resolve(), Path(out_dir).resolve()
    if precision not in PRECISIONS:
        raise InvalidRequest(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    for name in _REQUIRED_FILES:
        read_json(directory, name)
    source = Source(directory, read_weights_digest(directory).hex(), precision)
    if _is_current(target, source, product):
        return target
    _check_may_write(target)
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise missing_extra("convert", *missing)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as name:
        scratch = Path(name)
        staged, old = scratch / "staged", scratch / "old"
        staged.mkdir()
        manifest = build(source, staged, scratch)
        for name in _COPIED_FILES:
            if (directory / name).is_file():
                shutil.copyfile(directory / name, staged / name)
        manifest.write(staged)
        # A directory that is not empty cannot be replaced, only moved away.
        if target.exists():
            os.replace(target, old)
        os.replace(staged, target)
    return target


def _is_current(target: Path, source: Source, product: str) -> bool:
    try:
        manifest = Manifest.read(target)
    except SegueError:
        return False
    made_from = (manifest.model, manifest.weights_digest, manifest.numerics)
    ours = source.directory
    return (
        (target / product).is_file()
        and made_from == (ours.name, source.weights_digest, source.precision)
        and all(
            (ours / name).is_file() == (target / name).is_file()
            and (not (ours / name).is_file() or filecmp.cmp(ours / name, target / name, False))
            for name in _COPIED_FILES
        )
    )


def _check_may_write(target: Path) -> None:
    """Refuse to replace a directory that no conversion has made."""
    ours = (target / MANIFEST_NAME).is_file()
    if target.exists() and not ours and not (target.is_dir() and not any(target.iterdir())):
        raise InvalidRequest(
            f"{target} holds something else than a converted model; "
            "name a directory that is empty or does not exist"
        )
