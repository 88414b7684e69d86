"""Small models in every form, made once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue_device.convert import convert_to_gguf, convert_to_onnx
from segue_device.convert.to_onnx import expose_positions
from tests.contract import tiny_llama


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
