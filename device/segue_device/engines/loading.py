"""Which engine runs a converted model. Engines are imported when one is asked for.

The core of the SDK does without numpy; it comes with an engine's extra.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from segue_device.engines.base import DeviceEngine
from segue_device.engines.checks import missing_extra, out_of_memory
from segue_device.engines.manifest import GRAPH_NAME
from segue_device.engines.manifest import NAME as MANIFEST_NAME
from segue_protocol.errors import InvalidRequest, NotFound, Unsupported

REFERENCE_NAME = "reference"

_GGUF = ".gguf"

# Class: its module, and an extra that brings what the module imports.
ENGINES = {
    "LlamaCppEngine": ("llama_cpp", "llama"),
    "OnnxEngine": ("onnx", "onnx"),
    "ReferenceDeviceEngine": ("reference", "onnx"),
}


def load_engine(path_or_name: str | Path, **options: Any) -> DeviceEngine:
    """The engine for a converted model, by what is there.

    A directory that :func:`segue_device.convert.convert_to_onnx` made becomes an
    `OnnxEngine`, one of :func:`segue_device.convert.convert_to_gguf` or the
    ``.gguf`` file in it a `LlamaCppEngine`; the name ``reference`` is the
    `ReferenceDeviceEngine`. `options` are the keyword arguments of that class.
    Raises NotFound when there is nothing at that path, Unsupported when no
    engine can read it or its extra is not installed, InvalidRequest for options
    the engine does not have, InternalError with reason ``OUT_OF_MEMORY``.
    """
    try:
        return _load(path_or_name, options)
    except MemoryError as error:
        raise out_of_memory(str(path_or_name)) from error


def _load(path_or_name: str | Path, options: dict[str, Any]) -> DeviceEngine:
    if path_or_name == REFERENCE_NAME:
        return _open("ReferenceDeviceEngine", options)
    path = Path(path_or_name)
    if not path.exists():
        raise NotFound(
            f"there is no {path}; expected a converted model or {REFERENCE_NAME!r}",
            reason="MODEL_NOT_FOUND",
        )
    weights = _gguf_file(path)
    if weights is not None:
        return _open("LlamaCppEngine", options, weights)
    if (path / MANIFEST_NAME).is_file() or (path / GRAPH_NAME).is_file():
        return _open("OnnxEngine", options, path)
    raise Unsupported(
        f"{path} holds no {MANIFEST_NAME} with {GRAPH_NAME} or a {_GGUF} file; convert a Hugging "
        "Face model with: python -m segue_device.convert HF_DIR OUT_DIR --format onnx|gguf",
        reason="UNKNOWN_MODEL_FORMAT",
    )


def engine_class(name: str) -> type[Any]:
    """One of ENGINES. Raises Unsupported, naming the extra, when it cannot be imported."""
    module, extra = ENGINES[name]
    try:
        found = getattr(import_module(f"segue_device.engines.{module}"), name)
    except ModuleNotFoundError as error:
        raise missing_extra(extra, str(error.name)) from error
    assert isinstance(found, type)
    return found


def _open(name: str, options: dict[str, Any], *arguments: Path) -> DeviceEngine:
    found = engine_class(name)
    _check_options(found, options)
    engine: DeviceEngine = found(*arguments, **options)
    return engine


def _gguf_file(path: Path) -> Path | None:
    """`path` or the one in it, if it is for llama.cpp."""
    if path.is_file():
        return path if path.suffix == _GGUF else None
    found = sorted(path.glob(f"*{_GGUF}"))
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise InvalidRequest(f"{path} holds {names}; name the file instead of the directory")
    return found[0] if found else None


def _check_options(engine: type[Any], options: dict[str, Any]) -> None:
    parameters = inspect.signature(engine).parameters.values()
    known = sorted(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidRequest(
            f"{engine.__name__} has no option {', '.join(unknown)}; expected {', '.join(known)}"
        )
