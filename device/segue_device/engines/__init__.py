"""Engines: a model with its KV cache on the device.

The contract is :class:`DeviceEngine`; asynchronous code talks to a
:class:`Runner`. :func:`load_engine` finds the engine for a model directory.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from segue_device.engines.base import Cancel, Capabilities, DeviceEngine
from segue_device.engines.manifest import NAME as MANIFEST_NAME
from segue_device.engines.onnx import GRAPH_NAME, OnnxEngine
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.engines.runner import EngineRunner, InlineRunner, Runner
from segue_device.engines.throttled import ThrottledEngine
from segue_protocol.errors import InvalidRequest, NotFound, Unsupported

__all__ = [
    "Cancel",
    "Capabilities",
    "DeviceEngine",
    "EngineRunner",
    "InlineRunner",
    "OnnxEngine",
    "ReferenceDeviceEngine",
    "Runner",
    "ThrottledEngine",
    "load_engine",
]

REFERENCE_NAME = "reference"


def load_engine(path_or_name: str | Path, **options: Any) -> DeviceEngine:
    """The engine for a model directory, by what the directory holds.

    A directory made by :mod:`segue_device.convert` becomes an
    :class:`OnnxEngine`; the name ``reference`` is the
    :class:`ReferenceDeviceEngine`. `options` are the keyword arguments of that
    class. Raises NotFound when there is no such directory, Unsupported when no
    engine can read it or its extra is not installed, InvalidRequest for options
    the engine does not have.
    """
    if path_or_name == REFERENCE_NAME:
        _check_options(ReferenceDeviceEngine, options)
        return ReferenceDeviceEngine(**options)
    directory = Path(path_or_name)
    if not directory.is_dir():
        raise NotFound(
            f"{directory} is no directory; expected a converted model or {REFERENCE_NAME!r}",
            reason="MODEL_NOT_FOUND",
        )
    if (directory / MANIFEST_NAME).is_file() or (directory / GRAPH_NAME).is_file():
        _check_options(OnnxEngine, options)
        return OnnxEngine(directory, **options)
    raise Unsupported(
        f"{directory} holds no {MANIFEST_NAME} and {GRAPH_NAME}; convert a Hugging Face model "
        "with: python -m segue_device.convert HF_DIR OUT_DIR",
        reason="UNKNOWN_MODEL_FORMAT",
    )


def _check_options(engine: type[Any], options: dict[str, Any]) -> None:
    parameters = inspect.signature(engine).parameters.values()
    known = sorted(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidRequest(
            f"{engine.__name__} has no option {', '.join(unknown)}; expected {', '.join(known)}"
        )
