"""The ONNX Runtime engine: exact positions, growth, cancel, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from segue_device.engines import (
    Cancel,
    OnnxEngine,
    ReferenceDeviceEngine,
    load_engine,
    onnx_cache,
)
from segue_protocol.errors import (
    ContextTooLong,
    InvalidRequest,
    NotFound,
    Unsupported,
)
from tests.contract import tiny_llama
from tests.contract.engine_cases import (
    CHUNK,
    COMPACT,
    CONTEXT,
    GAPPED,
    IDS,
    after,
    torch_logits,
)


@pytest.mark.parametrize("positions", [COMPACT, GAPPED], ids=["compact", "gapped"])
@pytest.mark.parametrize("kind", ["onnx_dir", "built_dir"])
def test_onnx_agrees_with_torch(
    request: pytest.FixtureRequest, hf_dir: Path, kind: str, positions: list[int]
) -> None:
    engine = OnnxEngine(request.getfixturevalue(kind), chunk_tokens=CHUNK)
    assert engine.capabilities.positions == "exact"
    expected = torch_logits(hf_dir, IDS, positions)[-1]
    got = after(engine, (IDS, positions))
    beside = torch_logits(hf_dir, IDS, COMPACT)[-1]
    difference = float(np.abs(got - expected).max())
    print(
        f"{kind}: largest difference from torch {difference:.2e}; torch at compacted positions "
        f"{float(np.abs(beside - expected).max()):.2e}"
    )
    assert difference < 2e-4
    assert got.argmax() == expected.argmax()
    if positions is GAPPED:
        assert np.abs(beside - expected).max() > 1e3 * difference
    engine.close()


def test_onnx_cache_grows_without_a_change(
    onnx_dir: Path, hf_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_cache, "FIRST_CELLS", 4)
    engine = OnnxEngine(onnx_dir, chunk_tokens=5)
    capacities = set()
    for index in range(CONTEXT):
        engine.append(IDS[index : index + 1], range(index, index + 1), cancel=Cancel())
        capacities.add(engine._cache.capacity)
    assert capacities == {4, 8, 16, 32, 64, 128}
    assert np.abs(engine.logits() - torch_logits(hf_dir, IDS, COMPACT)[-1]).max() < 1e-3
    engine.close()


def test_onnx_graph_that_counts_positions_takes_no_gaps(hf_dir: Path, tmp_path: Path) -> None:
    tiny_llama.write_onnx_model(hf_dir, tmp_path / "plain")
    engine = OnnxEngine(tmp_path / "plain")
    assert engine.capabilities.positions == "compact"
    with pytest.raises(Unsupported) as refused:
        engine.append(IDS, GAPPED, cancel=Cancel())
    assert refused.value.reason == "GAPPED_POSITIONS"
    got = after(engine, (IDS, COMPACT))
    assert np.abs(got - torch_logits(hf_dir, IDS, COMPACT)[-1]).max() < 1e-3
    engine.close()


def test_onnx_positions_end_with_the_model(onnx_dir: Path) -> None:
    engine = OnnxEngine(onnx_dir)
    with pytest.raises(ContextTooLong, match="positions below 2048"):
        engine.append([5], [2048], cancel=Cancel())
    after(engine, ([5], [2047]))
    engine.close()


def test_onnx_identity_is_that_of_the_source(onnx_dir: Path, hf_dir: Path) -> None:
    from segue_protocol.identity import ModelIdentity

    engine = OnnxEngine(onnx_dir)
    assert engine.identity == ModelIdentity.from_directory(hf_dir, numerics="fp32")
    engine.close()


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"chunk_tokens": 0}, {"max_context_tokens": 2049}]
)
def test_onnx_options_out_of_range(onnx_dir: Path, options: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is .*, expected 1 to"):
        OnnxEngine(onnx_dir, **options)


def test_onnx_directory_that_is_damaged(onnx_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(onnx_dir, copy)
    (copy / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(InvalidRequest, match="cannot load"):
        OnnxEngine(copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(NotFound, match="convert the model again"):
        OnnxEngine(copy)


def test_onnx_graph_of_another_form(onnx_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(onnx_dir, copy)
    model = onnx.load(str(copy / "model.onnx"))
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("beam_width", onnx.TensorProto.INT64, [1])
    )
    onnx.save(model, str(copy / "model.onnx"))
    with pytest.raises(Unsupported, match="beam_width"):
        OnnxEngine(copy)


def test_onnxruntime_sends_no_telemetry(onnx_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    OnnxEngine(onnx_dir).close()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_engines_import_without_onnxruntime(
    onnx_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys, segue_device.engines, segue_device.convert; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnx", "onnxruntime", "torch", "segue_cloud"} & set(out.stdout.split())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Unsupported, match=r'pip install "segue-device\[onnx\]"') as refused:
        load_engine(onnx_dir)
    assert refused.value.reason == "EXTRA_MISSING"


def test_load_engine(onnx_dir: Path, hf_dir: Path, tmp_path: Path) -> None:
    engine = load_engine(onnx_dir, chunk_tokens=8)
    assert isinstance(engine, OnnxEngine)
    assert engine.capabilities.chunk_tokens == 8
    engine.close()
    assert isinstance(load_engine("reference"), ReferenceDeviceEngine)
    with pytest.raises(InvalidRequest, match=r"no option gpu; expected .*chunk_tokens"):
        load_engine(onnx_dir, gpu=True)
    with pytest.raises(Unsupported, match=r"python -m segue_device\.convert"):
        load_engine(hf_dir)
    with pytest.raises(NotFound):
        load_engine(tmp_path / "nowhere")
