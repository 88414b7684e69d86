"""Profiles kept between runs: measured once, thoroughly, with `segue profile`."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segue_device.engines.base import DeviceEngine
from segue_device.engines.checks import missing_extra
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.timeline import DeviceProfile

DIRECTORY_VARIABLE = "SEGUE_DATA_DIR"

_FORMAT = 1
# Bounds the memory of a cache, not the speed of an engine.
_OPTIONS_WITHOUT_EFFECT = {"max_context_tokens"}


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """What a speed belongs to: the weights and how they are computed, never a host's name.

    ``weights_digest`` in hex; ``options`` are the engine's, defaults included.
    """

    weights_digest: str
    numerics: str
    engine: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, engine: DeviceEngine, options: Mapping[str, Any]) -> ProfileKey:
        """The key of an engine that was loaded with `options`."""
        parameters = inspect.signature(type(engine)).parameters.values()
        all_options = {
            each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY
        }
        all_options.update(options)
        return cls(
            weights_digest=engine.identity.weights_digest.hex(),
            numerics=engine.identity.numerics,
            engine=type(engine).__name__,
            options={
                name: value if isinstance(value, (bool, int, float, type(None))) else str(value)
                for name, value in sorted(all_options.items())
                if name not in _OPTIONS_WITHOUT_EFFECT
            },
        )

    @property
    def file_name(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def data_directory() -> Path:
    """Where Segue keeps a user's data: ``SEGUE_DATA_DIR``, else what the system says.

    Raises Unsupported when neither is to be had (platformdirs is missing).
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        return Path(named)
    try:
        import platformdirs
    except ImportError as error:
        raise missing_extra("cli", "platformdirs") from error
    return platformdirs.user_data_path("segue", appauthor=False)


def find_profile(key: ProfileKey) -> DeviceProfile | None:
    """The stored profile, None when there is none, or none that can be read."""
    try:
        text = (_profiles() / key.file_name).read_text(encoding="utf-8")
        found = json.loads(text)
        if found["format"] != _FORMAT or found["key"] != asdict(key):
            return None
        profile = DeviceProfile(**found["profile"])
        profile.validate()
        return profile
    # It can be measured again; a damaged copy must not keep an app from starting.
    except (OSError, ValueError, TypeError, KeyError, SegueError):
        return None


def store_profile(key: ProfileKey, profile: DeviceProfile) -> Path:
    """Keep `profile` in place of what was stored before; returns the file.

    Raises InvalidRequest for weights without a digest, which nothing tells from
    others, or when the file cannot be written; Unsupported as data_directory.
    """
    if not key.weights_digest:
        raise InvalidRequest(
            "this model states no digest of its weights, so its profile cannot be found again; "
            "convert it with segue_device.convert, or pass the profile to DeviceModel.load"
        )
    directory = _profiles()
    content = {"format": _FORMAT, "key": asdict(key), "profile": asdict(profile)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=directory, suffix=".part", delete=False, encoding="utf-8"
        ) as file:
            json.dump(content, file, indent=2)
        os.replace(file.name, directory / key.file_name)
    except OSError as error:
        raise InvalidRequest(
            f"cannot write a profile to {directory}: {error}; set {DIRECTORY_VARIABLE} to a "
            "directory that can be written",
            reason="NOT_WRITABLE",
        ) from error
    return directory / key.file_name


def _profiles() -> Path:
    return data_directory() / "profiles"
