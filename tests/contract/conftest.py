"""Small models in every form, made once a run, and engines over them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from segue_device.convert import convert_to_gguf, convert_to_onnx
from segue_device.convert.to_onnx import expose_positions
from segue_device.engines import (
    DeviceEngine,
    LlamaCppEngine,
    OnnxEngine,
    ReferenceDeviceEngine,
    ThrottledEngine,
)
from tests.contract import tiny_llama
from tests.contract.engine_cases import CHUNK, CONTEXT, PROFILE, Make


@pytest.fixture(scope="session")
def hf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    tiny_llama.write_hf_model(directory)
    return directory


@pytest.fixture(scope="session")
def onnx_dir(hf_dir: Path) -> Path:
    directory = hf_dir.parent / "onnx"
    tiny_llama.write_onnx_model(hf_dir, directory)
    expose_positions(directory / "model.onnx")
    return directory


@pytest.fixture(scope="session")
def built_dir(hf_dir: Path) -> Path:
    return convert_to_onnx(hf_dir, hf_dir.parent / "built")


@pytest.fixture(scope="session")
def gguf_dir(hf_dir: Path) -> Path:
    return convert_to_gguf(hf_dir, hf_dir.parent / "gguf")


@pytest.fixture(params=["reference", "onnx", "onnx-built", "llama-cpp", "throttled"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes engines of one kind with small chunks and a small context; closes them."""
    made: list[DeviceEngine] = []
    fixture = {"onnx": "onnx_dir", "onnx-built": "built_dir", "llama-cpp": "gguf_dir"}
    directory = request.getfixturevalue(fixture.get(request.param, "tmp_path"))

    def make_one(*, chunk_tokens: int = CHUNK, max_context_tokens: int = CONTEXT) -> DeviceEngine:
        options = {"chunk_tokens": chunk_tokens, "max_context_tokens": max_context_tokens}
        engine: DeviceEngine
        if request.param.startswith("onnx"):
            engine = OnnxEngine(directory, **options)
        elif request.param == "llama-cpp":
            engine = LlamaCppEngine(directory / "model.gguf", **options)
        else:
            engine = ReferenceDeviceEngine(**options)
        if request.param == "throttled":
            engine = ThrottledEngine(engine, PROFILE, sleep=lambda seconds, cancel: None)
        made.append(engine)
        return engine

    yield make_one
    for engine in made:
        engine.close()
