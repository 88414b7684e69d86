"""What `segue check` looks at: a model on this device, and a cloud beside it.

Each step yields findings and leaves what later ones need. A step that raises
is a failed one, in the error's own words, and ends its side's examination.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import anyio

from segue_device import AsyncClient, Credentials, DeviceModel, Mode
from segue_device.engines.manifest import Manifest
from segue_device.modes import Situation, cloud_forbidden_by_user, plan
from segue_device.transports.addresses import transport_for
from segue_protocol.errors import DeadlineExceeded, NotFound, SegueError, Unsupported
from segue_protocol.identity import ModelIdentity, compare, exactness_level
from segue_protocol.model_files import read_json
from segue_protocol.version import PROTOCOL_MAJOR
from segue_protocol.wire import public

CLOUD_TIMEOUT_S = 15.0

_WEIGHTS = ("*.onnx", "*.onnx.data", "*.gguf")
_CACHE_BYTES_PER_NUMBER = 4
_GIB = 1 << 30

# By a plan's device, cloud and standby.
_WRITERS = {
    (True, True, False): "cloud, then device",
    (True, True, True): "cloud, device in reserve",
    (True, False, False): "device alone",
    (False, True, False): "cloud alone",
}


class Status(str, Enum):
    """OK, worth knowing, or in the way."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `remedy` says what to do about it."""

    check: str
    status: Status
    detail: str
    remedy: str = ""


async def examine(
    model: str, cloud: str | None, *, insecure: bool, credentials: Credentials
) -> AsyncIterator[Finding]:
    """Everything about `model`, then about `cloud`, then which modes that leaves."""
    device = None
    step = "files"
    try:
        for finding in _files(Path(model)):
            yield finding
        step = "engine"
        device = await DeviceModel.load(model)
        yield Finding(step, Status.OK, "loads")
    except SegueError as error:
        yield Finding(step, Status.FAIL, error.message)
    device_works = cloud_works = False
    if device is not None:
        for finding in (*_about(device), await _one_token(device)):
            yield finding
        device_works = finding.status is Status.OK
    if cloud is not None:
        async for finding in _cloud(cloud, device, insecure=insecure, credentials=credentials):
            yield finding
        cloud_works = finding.status is Status.OK
    yield _modes(device=device_works, cloud=cloud_works)


def _files(path: Path) -> Iterator[Finding]:
    if not path.exists():
        raise NotFound(f"there is no {path}; name a converted model, or get one with segue pull")
    directory = path if path.is_dir() else path.parent
    weights = sorted({found for pattern in _WEIGHTS for found in directory.glob(pattern)})
    if not weights:
        raise NotFound(
            f"{directory} holds no .onnx or .gguf file; convert a Hugging Face model: "
            "segue convert HF_DIR OUT_DIR"
        )
    manifest = Manifest.read(directory)
    read_json(directory, "tokenizer.json")
    weights_bytes = sum(found.stat().st_size for found in weights)
    names = ", ".join(found.name for found in weights)
    yield Finding("files", Status.OK, f"{names} ({_size(weights_bytes)}), tokenizer.json, manifest")
    yield _memory(weights_bytes, read_json(directory, "config.json"), manifest)


def _memory(weights_bytes: int, config: dict[str, object], manifest: Manifest) -> Finding:
    """What the weights and a full cache take, against what is free."""
    layers = config.get("num_hidden_layers")
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads")
    if not isinstance(layers, int) or not isinstance(heads, int):
        layers = heads = 0
    cell_bytes = 2 * layers * heads * manifest.head_dim * _CACHE_BYTES_PER_NUMBER
    cache_bytes = cell_bytes * manifest.max_context_tokens
    needed = weights_bytes + cache_bytes
    detail = (
        f"about {_size(needed)}: weights {_size(weights_bytes)}, cache {_size(cache_bytes)} at "
        f"{manifest.max_context_tokens} tokens"
    )
    available = available_memory_bytes()
    if available is None:
        return Finding("memory", Status.OK, f"{detail}; how much is free is not known here")
    detail += f"; {_size(available)} are free"
    if weights_bytes > available:
        remedy = "close other programs, or convert with --precision int8 or int4"
        return Finding("memory", Status.WARN, detail, remedy)
    if needed > available:
        return Finding("memory", Status.WARN, detail, "keep conversations short of the context")
    return Finding("memory", Status.OK, detail)


def available_memory_bytes() -> int | None:
    """What the system would give without swapping, where the standard library can tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _about(device: DeviceModel) -> Iterator[Finding]:
    identity, profile = device.identity, device.profile
    weights = identity.weights_digest.hex()[:12] or "unknown"
    yield Finding(
        "identity",
        Status.OK,
        f"{identity.model}, {identity.vocab_size} ids, weights {weights}, {identity.numerics}",
    )
    yield Finding("context", Status.OK, f"{device.max_context_tokens} tokens")
    yield Finding(
        "speed",
        Status.OK,
        f"{1 / profile.decode_s:.0f} tokens/s decoding, 512 prompt tokens in "
        f"{profile.prefill_s(512):.2f} s (segue profile measures better)",
    )
    yield _template(device)


def _template(device: DeviceModel) -> Finding:
    assert device.tokenizer is not None, "a loaded model has one"
    try:
        prompt = device.tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
    except SegueError as error:
        return Finding("chat template", Status.WARN, error.message, "ask and chat need one")
    return Finding("chat template", Status.OK, f"a greeting becomes {len(prompt)} tokens")


async def _one_token(device: DeviceModel) -> Finding:
    """A real answer of one token; closes the model."""
    assert device.tokenizer is not None, "a loaded model has one"
    try:
        async with AsyncClient(model=device) as client:
            stream = client.stream(
                prompt_token_ids=device.tokenizer.encode("Hello"),
                max_tokens=1,
                mode=Mode.ONLY_ON_DEVICE,
            )
            async with stream as answer:
                result = await answer.final()
    except SegueError as error:
        return Finding("answer", Status.FAIL, error.message)
    return Finding("answer", Status.OK, f"one token (id {result.token_ids[0]})")


async def _cloud(
    address: str, device: DeviceModel | None, *, insecure: bool, credentials: Credentials
) -> AsyncIterator[Finding]:
    try:
        found = await _ask_cloud(address, insecure=insecure, credentials=credentials)
        theirs = ModelIdentity.from_wire(found.identity)
    except SegueError as error:
        yield Finding("cloud", Status.FAIL, f"{address}: {error.message}")
        return
    major, minor = found.protocol.major, found.protocol.minor
    detail = (
        f"{address} runs {theirs.model}, {found.max_context_tokens} tokens of context, "
        f"{theirs.numerics}, protocol {major}.{minor}"
    )
    if major != PROTOCOL_MAJOR:
        remedy = f"this device speaks protocol {PROTOCOL_MAJOR}; update the older side"
        yield Finding("cloud", Status.FAIL, detail, remedy)
        return
    yield Finding("cloud", Status.OK, detail)
    if device is None:
        return
    found_by = compare(device.identity, theirs)
    for warning in found_by.warnings:
        yield Finding("identity with the cloud", Status.WARN, warning)
    if found_by.fatal:
        yield Finding(
            "identity with the cloud",
            Status.FAIL,
            "; ".join(found_by.fatal),
            "use a model with the same tokenizer on both sides",
        )
        return
    level = exactness_level(device.identity, theirs)
    yield Finding("identity with the cloud", Status.OK, f"the same tokens; exactness level {level}")


async def _ask_cloud(
    address: str, *, insecure: bool, credentials: Credentials
) -> public.GetModelResponse:
    transport = transport_for(address, insecure=insecure, credentials=credentials)
    try:
        with anyio.fail_after(CLOUD_TIMEOUT_S):
            return await transport.get_model(public.GetModelRequest())
    except TimeoutError:
        raise DeadlineExceeded(f"no reply within {CLOUD_TIMEOUT_S:.0f} s") from None
    finally:
        await transport.aclose()


def _modes(*, device: bool, cloud: bool) -> Finding:
    """Who would write in each mode; a failure when nobody would in any."""
    by_writer: dict[str, list[str]] = {}
    refused = ""
    situation = Situation(device, cloud, cloud_forbidden=cloud_forbidden_by_user())
    for mode in Mode:
        try:
            found = plan(mode, situation)
        except Unsupported as error:
            refused = error.message
            by_writer.setdefault("not to be had", []).append(mode.value)
        else:
            writer = _WRITERS[found.device, found.cloud, found.standby]
            by_writer.setdefault(writer, []).append(mode.value)
    detail = "; ".join(f"{writer}: {', '.join(names)}" for writer, names in by_writer.items())
    if set(by_writer) == {"not to be had"}:
        return Finding("modes", Status.FAIL, detail, refused)
    return Finding("modes", Status.OK, detail)


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / (1 << 20):.0f} MiB"
