"""Make a model directory for the device from a Hugging Face one, once and offline.

``python -m segue_device.convert HF_DIR OUT_DIR --format onnx|gguf``, or the
functions below. What comes out holds the weights in the engine's own format,
the tokenizer as it was, and a manifest that says where they came from.
"""

from __future__ import annotations

from segue_device.convert.to_gguf import convert_to_gguf
from segue_device.convert.to_onnx import convert_to_onnx

__all__ = ["convert_to_gguf", "convert_to_onnx"]
