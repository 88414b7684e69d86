"""Reading a Hugging Face model directory, every failure naming its file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from segue_protocol.errors import InvalidRequest, NotFound

_READ_BYTES = 1 << 20


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """The JSON object in `directory`/`name`.

    Raises NotFound when the file is missing, InvalidRequest when it holds
    anything but one JSON object.
    """
    path = directory / name
    if not path.is_file():
        raise NotFound(
            f"{path} is missing; a model directory needs it: download the whole model",
            reason="MODEL_FILE_MISSING",
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(path, f"it holds a {type(found).__name__}")
    return found


def read_optional_json(directory: Path, name: str) -> dict[str, Any]:
    """As :func:`read_json`, but a missing file is an empty object."""
    return read_json(directory, name) if (directory / name).exists() else {}


def read_chat_template(directory: Path) -> str | None:
    """The Jinja template: chat_template.jinja, else that of tokenizer_config.json.

    Of several named templates the one called ``default`` counts. None when
    the model has no template.
    """
    path = directory / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = read_optional_json(directory, "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):
        named = [each for each in found if isinstance(each, dict) and each.get("name") == "default"]
        found = named[0].get("template") if named else None
    if found is None or isinstance(found, str):
        return found
    raise _damaged(directory / "tokenizer_config.json", "chat_template is no text")


def read_stop_token_ids(directory: Path) -> tuple[int, ...]:
    """Ids that end an answer: eos_token_id of generation_config.json, else of config.json.

    Raises NotFound when neither file names one.
    """
    for name in ("generation_config.json", "config.json"):
        found = read_optional_json(directory, name).get("eos_token_id")
        ids = [found] if isinstance(found, int) else found
        if isinstance(ids, list) and ids and all(isinstance(entry, int) for entry in ids):
            return tuple(sorted(set(ids)))
    raise NotFound(
        f"no eos_token_id in {directory / 'generation_config.json'} or config.json; "
        "an answer could never end: add one",
        reason="MODEL_FILE_MISSING",
    )


def read_weights_digest(directory: Path) -> bytes:
    """SHA-256 over the bytes of all ``*.safetensors`` files in name order.

    Raises NotFound when there are none.
    """
    paths = sorted(directory.glob("*.safetensors"))
    if not paths:
        raise NotFound(
            f"{directory / '*.safetensors'} is missing; download the weights "
            "or pass weights_digest (b'' for unknown)",
            reason="MODEL_FILE_MISSING",
        )
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    return digest.digest()


def _damaged(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} is not what a model directory holds there: {why}; download it again",
        reason="MODEL_FILE_DAMAGED",
    )
