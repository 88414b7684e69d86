"""Engines: a model with its KV cache on the device.

The contract is :class:`DeviceEngine`; asynchronous code talks to a
:class:`Runner`. :func:`load_engine` finds the engine for a converted model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segue_device.engines.base import Cancel, Capabilities, DeviceEngine
from segue_device.engines.loading import ENGINES, engine_class, load_engine
from segue_device.engines.runner import EngineRunner, InlineRunner, Runner
from segue_device.engines.throttled import ThrottledEngine

if TYPE_CHECKING:
    from segue_device.engines.llama_cpp import LlamaCppEngine
    from segue_device.engines.onnx import OnnxEngine
    from segue_device.engines.reference import ReferenceDeviceEngine
else:

    def __getattr__(name: str) -> type:
        if name not in ENGINES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return engine_class(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *ENGINES})


__all__ = [
    "Cancel",
    "Capabilities",
    "DeviceEngine",
    "EngineRunner",
    "InlineRunner",
    "LlamaCppEngine",
    "OnnxEngine",
    "ReferenceDeviceEngine",
    "Runner",
    "ThrottledEngine",
    "load_engine",
]
