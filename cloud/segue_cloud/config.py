"""Every setting of every cloud process, with its default.

A value comes from the command line, else from the environment
(``SEGUE_PORT=...``), else from a TOML file, else from the default here.
Unknown keys are refused wherever they stand.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from segue_protocol.errors import InvalidRequest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT_PREFIX = "SEGUE_"


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """`segue-cloud serve`: the gateway and the workers it starts."""

    model: str = ""
    host: str = "127.0.0.1"
    port: int = 8710
    worker_port: int = 0  # 0: any free one; workers started here are told
    websocket_port: int = 8711  # 0: any free one, -1: no WebSocket
    websocket_origins: str = ""  # web pages that may connect: origins, separated by commas
    prefill_workers: int = 1
    decode_workers: int = 1
    dtype: str = "float32"
    threads: int = 1
    prefill_slots: int = 4
    prefill_chunk_tokens: int = 512
    max_batch: int = 64
    pages: int = 1024
    page_tokens: int = 16
    max_context_tokens: int = 0  # 0: the model's own
    kv_digest: str = "sampled"
    credit_cap: int = 0  # 0: none
    first_token_s: float = 30.0
    inter_token_s: float = 10.0
    unclaimed_s: float = 30.0
    heartbeat_s: float = 5.0
    lease_s: float = 3.0
    insecure: bool = False  # plain text on an address that is not loopback


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """`segue-cloud worker`: one worker process."""

    role: str = ""
    gateway: str = ""
    model: str = ""
    dtype: str = "float32"
    threads: int = 1
    prefill_slots: int = 4
    prefill_chunk_tokens: int = 512
    max_batch: int = 64
    pages: int = 1024
    page_tokens: int = 16
    max_context_tokens: int = 0
    kv_digest: str = "sampled"


Config = TypeVar("Config", ServeConfig, WorkerConfig)


def load(
    kind: type[Config],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Merge file, environment and flags (None: not given) over the defaults.

    Raises InvalidRequest naming an unknown key or a value of the wrong type.
    """
    known = get_type_hints(kind)
    merged: dict[str, Any] = {}
    if file is not None:
        merged.update(_from_file(kind, file, known))
    for variable, text in (os.environ if environment is None else environment).items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if variable.startswith(ENVIRONMENT_PREFIX) and name in known:
            merged[name] = _parse(variable, text, known[name])
    merged.update({name: value for name, value in (flags or {}).items() if value is not None})
    unknown = sorted(set(merged) - set(known))
    if unknown:
        raise InvalidRequest(f"unknown setting {unknown[0]!r}; known are {', '.join(known)}")
    return kind(**merged)


def _from_file(kind: type[Config], file: Path, known: Mapping[str, type]) -> dict[str, Any]:
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"cannot read the configuration {file}: {error}") from error
    for name, value in values.items():
        wanted = known.get(name)
        if wanted is float and type(value) is int:
            values[name] = float(value)
        elif wanted is not None and type(value) is not wanted:
            raise InvalidRequest(
                f"{name} in {file} is {value!r}, expected a value of type {wanted.__name__}"
            )
    return values


def _parse(name: str, text: str, wanted: type) -> Any:
    if wanted is bool:
        if text.lower() in ("1", "true", "yes"):
            return True
        if text.lower() in ("0", "false", "no", ""):
            return False
        raise InvalidRequest(f"{name} is {text!r}, expected true or false")
    try:
        return wanted(text)
    except ValueError:
        raise InvalidRequest(f"{name} is {text!r}, expected {wanted.__name__}") from None


def worker_flags(config: WorkerConfig) -> list[str]:
    """The command line that gives another process this configuration."""
    return [
        part
        for field in dataclasses.fields(config)
        for part in (f"--{field.name.replace('_', '-')}", str(getattr(config, field.name)))
    ]
