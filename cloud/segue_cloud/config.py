"""Every setting of every cloud process, with its default.

A value comes from the command line, else from the environment
(``SEGUE_PORT=...``), else from a TOML file, else from the default here.
Unknown keys are refused wherever they stand.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from segue_protocol.errors import InvalidRequest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT_PREFIX = "SEGUE_"


@dataclass(frozen=True, slots=True)
class KeepConfig:
    """What is left of an answer's quality when part of the prompt is kept: ``[[groups.keep]]``.

    `quality` is relative to the whole prompt's, as ``benchmarks.refinement`` measures it.
    """

    ratio: float = 1.0
    quality: float = 1.0


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """A scenario and its instances (P/D-Serve 3.1): ``[[groups]]`` in the file.

    A request belongs to the first group that names its label, else to the first
    whose `prompt_prefix` its prompt begins with, else to the one group that
    names neither. Every prefill worker of a group may feed every decode worker
    of it, and no other.

    Prefixes are compared token by token with whole prompts: what the chat
    template writes before the first message belongs to them, and they end
    where a token ends (after a sentence, not within a word or after a space).
    """

    name: str = "default"
    labels: tuple[str, ...] = ()
    prompt_prefix: str = ""
    # Started here; workers of other hosts join by the group's name.
    prefill_workers: int = 1
    decode_workers: int = 1
    aggregated_workers: int = 0  # each does both
    # Each a prefill and a decode process over one copy of the weights and one page pool.
    unified_workers: int = 0
    # Texts whose KV all tenants of the group may share.
    shared_prefixes: tuple[str, ...] = ()
    # Let the gateway switch the role of an idle worker to keep the ratio balanced.
    auto_ratio: bool = False
    # What the tuner aims at, where a request names no targets of its own, and what nine in ten
    # answers should keep where unified workers divide their compute.
    ttft_s: float = 0.0  # 0: as soon as may be
    tpot_s: float = 0.0  # the slowest pace that is accepted; 0: 50 ms, or the device's own
    quality_floor: float = 0.95
    keep: tuple[KeepConfig, ...] = ()  # none: no prompt is refined


@dataclass(frozen=True, slots=True)
class TenantConfig:
    """Who may use the gateway, and how much at once: ``[[tenants]]`` in the file."""

    name: str = ""
    # A file with one bearer token a line, so that none stands in the configuration.
    token_file: str = ""
    max_requests: int = 0  # 0: no limit
    max_prefill_tokens: int = 0  # prompt tokens that wait for or are in prefill; 0: no limit
    requests_per_s: float = 0.0  # 0: no limit


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """`segue-cloud serve`: the gateway and the workers it starts."""

    model: str = ""
    host: str = "127.0.0.1"
    port: int = 8710
    worker_host: str = "127.0.0.1"  # where workers join
    worker_port: int = 0  # 0: any free one; workers started here are told
    websocket_port: int = 8711  # 0: any free one, -1: no WebSocket
    websocket_origins: str = ""  # web pages that may connect: origins, separated by commas
    prefill_workers: int = 1
    decode_workers: int = 1
    aggregated_workers: int = 0  # each does both
    unified_workers: int = 0
    engine: str = "torch"  # or "emulated": an accelerator's times, slept; no weights
    profile: str = ""  # of the emulated accelerator: a file, or a published profile's name
    speed: float = 1.0  # of the emulated accelerator: times as fast as its profile
    dtype: str = "float32"
    threads: int = 1
    prefill_slots: int = 4
    prefill_chunk_tokens: int = 512
    prefix_cache_bytes: int = 256 * 2**20  # of each prefill worker; 0: none
    refine_layer: int = -1  # that scores prompts; -1: where two fifths of the layers end
    max_batch: int = 64
    iteration_tokens: int = 256  # of an aggregated worker: decodes, then prompts
    pages: int = 1024
    page_tokens: int = 16
    max_context_tokens: int = 0  # 0: the model's own
    # Of the compute of a unified worker, in percent; together they may exceed 100.
    prefill_share: int = 80
    decode_share: int = 100
    share_window_s: float = 30.0  # between two looks at what was measured
    kv_digest: str = "sampled"
    transfer: str = "shm"  # how KV moves: shm (one host), tcp or nixl (extra rdma)
    transfer_trigger: str = "request"  # KV moves when all is computed, or "layer": as it is
    transfer_devices: str = "lo"  # nixl: network devices, as UCX names them
    transfer_deadline_s: float = 5.0
    credit_cap: int = 0  # 0: none
    first_token_s: float = 30.0
    inter_token_s: float = 10.0
    unclaimed_s: float = 30.0
    heartbeat_s: float = 5.0
    lease_s: float = 3.0
    drain_grace_s: float = 30.0
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 8712  # 0: any free one, -1: no metrics
    log_format: str = "text"  # or json: one object a line
    log_level: str = "info"
    answer_log: str = ""  # a file that gets a line of counts and times for every answer
    # PEM files. With tls_client_ca devices, too, must show a certificate.
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    # Between gateway and workers: each shows a certificate of worker_tls_ca.
    worker_tls_certificate: str = ""
    worker_tls_key: str = ""
    worker_tls_ca: str = ""
    worker_tls_name: str = ""  # what certificates are called that do not name their host
    cluster_token_file: str = ""  # without worker TLS; "": drawn, for this user on this host
    insecure: bool = False  # plain text on an address that is not loopback
    groups: tuple[GroupConfig, ...] = ()  # none: one group of prefill_workers and decode_workers
    tenants: tuple[TenantConfig, ...] = ()  # none: nobody is asked who they are


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """`segue-cloud worker`: one worker process."""

    role: str = ""  # prefill, decode, aggregated or unified
    group: str = "default"
    gateway: str = ""  # where workers join
    host: str = "127.0.0.1"  # where the gateway finds this worker
    port: int = 0  # 0: any free one; the gateway is told
    advertised_host: str = ""  # the worker's name for the gateway, if it is not `host`
    worker_tls_certificate: str = ""
    worker_tls_key: str = ""
    worker_tls_ca: str = ""
    worker_tls_name: str = ""
    cluster_token_file: str = ""  # "": the one a gateway of this user on this host drew
    insecure: bool = False  # plain text to and from other hosts
    model: str = ""
    engine: str = "torch"
    profile: str = ""
    speed: float = 1.0
    dtype: str = "float32"
    threads: int = 1
    prefill_slots: int = 4
    prefill_chunk_tokens: int = 512
    prefix_cache_bytes: int = 256 * 2**20  # of each prefill worker; 0: none
    refine_layer: int = -1  # that scores prompts; -1: where two fifths of the layers end
    max_batch: int = 64
    iteration_tokens: int = 256  # of an aggregated worker: decodes, then prompts
    pages: int = 1024
    page_tokens: int = 16
    max_context_tokens: int = 0
    kv_digest: str = "sampled"
    transfer: str = "shm"  # how KV moves: shm (one host), tcp or nixl (extra rdma)
    transfer_trigger: str = "request"  # KV moves when all is computed, or "layer": as it is
    transfer_port: int = 0  # tcp: where a prefill worker is asked for KV; 0: any free one
    transfer_devices: str = "lo"  # nixl: network devices, as UCX names them
    transfer_deadline_s: float = 5.0
    # Of the compute of a unified worker, in percent; together they may exceed 100.
    prefill_share: int = 80
    decode_share: int = 100
    # The group's targets, which shares follow; 0: none.
    ttft_s: float = 0.0
    tpot_s: float = 0.0
    share_window_s: float = 30.0  # between two looks at what was measured
    resident: str = ""  # set by a unified worker for the two that it starts
    drain_grace_s: float = 30.0  # before what still runs is moved to other workers
    log_format: str = "text"
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class ProfileConfig:
    """`segue-cloud profile`: how fast a model runs on this machine."""

    model: str = ""
    dtype: str = "float32"
    threads: int = 1
    out: str = ""  # a file to keep the profile in
    json: bool = False


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """`segue-cloud status`, `drain` and `switch`: how to reach a gateway's worker port."""

    gateway: str = ""  # where workers join
    worker_tls_certificate: str = ""
    worker_tls_key: str = ""
    worker_tls_ca: str = ""
    worker_tls_name: str = ""
    cluster_token_file: str = ""  # "": the one a gateway of this user on this host drew
    insecure: bool = False  # plain text to another host
    json: bool = False  # print one JSON object


Config = TypeVar("Config", ServeConfig, WorkerConfig, ProfileConfig, ControlConfig)


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
    merged: dict[str, Any] = _from_file(kind, file) if file is not None else {}
    for variable, text in (os.environ if environment is None else environment).items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if variable.startswith(ENVIRONMENT_PREFIX) and name in known and _is_plain(known[name]):
            merged[name] = _parse(variable, text, known[name])
    merged.update({name: value for name, value in (flags or {}).items() if value is not None})
    _require_known(kind, merged, "")
    return kind(**merged)


def plain_fields(kind: type[Any]) -> list[dataclasses.Field[Any]]:
    """Settings with one value, which flags and variables can give."""
    types = get_type_hints(kind)
    return [each for each in dataclasses.fields(kind) if _is_plain(types[each.name])]


def _is_plain(wanted: Any) -> bool:
    return get_origin(wanted) is not tuple


def _from_file(kind: type[Any], file: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"cannot read the configuration {file}: {error}") from error
    return _typed(kind, table, f" in {file}")


def _typed(kind: type[Any], table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of one table, arrays of tables as tuples of their dataclass."""
    _require_known(kind, table, where)
    known = get_type_hints(kind)
    return {name: _value(name, value, known[name], where) for name, value in table.items()}


def _value(name: str, value: Any, wanted: Any, where: str) -> Any:
    if get_origin(wanted) is tuple and type(value) is list:
        of = get_args(wanted)[0]
        return tuple(
            _value(f"{name}[{place}]", each, of, where) for place, each in enumerate(value)
        )
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type) and type(value) is dict:
        return wanted(**_typed(wanted, value, f" of {name}{where}"))
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        expected = getattr(wanted, "__name__", str(wanted))
        raise InvalidRequest(f"{name}{where} is {value!r}, expected a value of type {expected}")
    return value


def _require_known(kind: type[Any], names: Iterable[str], where: str) -> None:
    known = get_type_hints(kind)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InvalidRequest(f"unknown setting {unknown[0]!r}{where}; known are {', '.join(known)}")


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
    flags: list[str] = []
    for field in plain_fields(type(config)):
        name, value = field.name.replace("_", "-"), getattr(config, field.name)
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        else:
            flags += [f"--{name}", str(value)]
    return flags
