"""The llama.cpp engine: agreement with torch, exact gaps, and what it refuses."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segue_device.engines import Cancel, LlamaCppEngine, llama_gaps, load_engine
from segue_device.engines.manifest import Manifest
from segue_protocol.errors import (
    ContextTooLong,
    InternalError,
    InvalidRequest,
    NotFound,
    Unsupported,
)
from segue_protocol.identity import ModelIdentity, exactness_level
from tests.contract.engine_cases import CHUNK, COMPACT, GAPPED, IDS, after, torch_logits


@pytest.fixture
def weights(gguf_dir: Path) -> Path:
    return gguf_dir / "model.gguf"


@pytest.fixture
def copy(gguf_dir: Path, tmp_path: Path) -> Path:
    """The weights in a directory that a test may damage."""
    shutil.copytree(gguf_dir, tmp_path / "copy")
    return tmp_path / "copy" / "model.gguf"


@pytest.mark.parametrize("positions", [COMPACT, GAPPED], ids=["compact", "gapped"])
def test_agrees_with_torch(weights: Path, hf_dir: Path, positions: list[int]) -> None:
    engine = LlamaCppEngine(weights, chunk_tokens=CHUNK)
    expected = torch_logits(hf_dir, IDS, positions)[-1]
    got = after(engine, (IDS, positions))
    beside = torch_logits(hf_dir, IDS, COMPACT)[-1]
    difference = float(np.abs(got - expected).max())
    print(
        f"largest difference from torch {difference:.2e}; torch at compacted positions "
        f"{float(np.abs(beside - expected).max()):.2e}"
    )
    assert difference < 2e-4
    if positions is GAPPED:
        assert np.abs(beside - expected).max() > 1e3 * difference
    engine.close()


def test_a_gap_may_be_followed_by_the_last_free_cell(weights: Path, hf_dir: Path) -> None:
    engine = LlamaCppEngine(weights, max_context_tokens=256)
    ids, positions = [5] * 256, [*range(255), 400]
    got = after(engine, (ids[:255], positions[:255]), (ids[255:], positions[255:]))
    assert np.abs(got - torch_logits(hf_dir, ids, positions)[-1]).max() < 2e-4
    engine.close()


def test_another_form_of_state_is_not_written_to(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LlamaCppEngine(weights)
    before = after(engine, (IDS[:5], COMPACT[:5]))
    with monkeypatch.context() as other:
        other.setattr(llama_gaps, "_HEADER", llama_gaps.struct.Struct("=8xiIIiI"))
        with pytest.raises(InternalError, match="install llama-cpp-python") as refused:
            engine.append(IDS[:1], [50], cancel=Cancel())
    assert refused.value.reason == "LLAMA_CPP_STATE_FORM"
    engine.rewind(4)
    assert np.abs(after(engine, (IDS[4:5], [4])) - before).max() < 1e-4
    engine.close()


def test_options_are_named_in_the_numerics(weights: Path, hf_dir: Path) -> None:
    source = ModelIdentity.from_directory(hf_dir, numerics="fp32")
    plain = LlamaCppEngine(weights)
    assert plain.identity == source
    assert plain.capabilities.positions == "exact"
    expected = after(plain, (IDS, COMPACT))
    for option, name in (
        ("flash_attention", "fp32+flash-attention"),
        ("half_precision_cache", "fp32+fp16-cache"),
    ):
        engine = LlamaCppEngine(weights, **{option: True})
        assert engine.identity.numerics == name
        assert exactness_level(source, engine.identity) == 3
        difference = float(np.abs(after(engine, (IDS, COMPACT)) - expected).max())
        print(f"{option}: largest difference {difference:.2e}")
        assert 0 < difference < 0.2
        engine.close()
    plain.close()


def test_positions_end_with_the_model_and_cells_with_the_option(weights: Path) -> None:
    engine = LlamaCppEngine(weights, max_context_tokens=64, chunk_tokens=2048)
    with pytest.raises(ContextTooLong, match="positions below 2048"):
        engine.append([5], [2048], cancel=Cancel())
    after(engine, ([5], [2000]), ([5], [2047]))
    engine.close()


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"chunk_tokens": 0}, {"max_context_tokens": 2049}]
)
def test_options_out_of_range(weights: Path, options: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is .*, expected 1 to"):
        LlamaCppEngine(weights, **options)


def test_damaged_and_missing_files(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy.write_bytes(copy.read_bytes()[:100_000])
    with pytest.raises(InvalidRequest, match=r"cannot load .*model\.gguf: .*convert") as refused:
        LlamaCppEngine(copy)
    assert refused.value.reason == "MODEL_NOT_LOADED"
    copy.unlink()
    with pytest.raises(NotFound, match="--format gguf"):
        LlamaCppEngine(copy)
    (copy.parent / "segue_model.json").unlink()
    with pytest.raises(NotFound, match=r"segue_model\.json"):
        LlamaCppEngine(copy)
    assert capfd.readouterr() == ("", ""), "whatever llama.cpp says is in the error"


def test_weights_of_another_model_are_refused(copy: Path) -> None:
    manifest = Manifest.read(copy.parent)
    other = Manifest("other", "00" * 32, "fp32", manifest.max_context_tokens, 64)
    other.write(copy.parent)
    with pytest.raises(InvalidRequest, match="is not what the manifest beside it"):
        LlamaCppEngine(copy)


def test_a_dropped_engine_is_freed(weights: Path) -> None:
    engine = LlamaCppEngine(weights)
    free = engine._context._free
    del engine
    gc.collect()
    assert not free.alive


def test_engines_import_without_llama_cpp(gguf_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, segue_device.engines, segue_device.convert; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"llama_cpp", "gguf", "torch"} & set(out.stdout.split())
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(Unsupported, match=r'pip install "segue-device\[llama\]"') as refused:
        load_engine(gguf_dir)
    assert refused.value.reason == "EXTRA_MISSING"


def test_load_engine_takes_the_file_or_its_directory(copy: Path) -> None:
    for path in (copy, copy.parent, str(copy)):
        engine = load_engine(path, chunk_tokens=8)
        assert isinstance(engine, LlamaCppEngine)
        assert engine.capabilities.chunk_tokens == 8
        engine.close()
    with pytest.raises(InvalidRequest, match=r"no option gpu; expected .*flash_attention"):
        load_engine(copy, gpu=True)
    shutil.copy(copy, copy.with_name("second.gguf"))
    with pytest.raises(InvalidRequest, match=r"model\.gguf, second\.gguf; name the file"):
        load_engine(copy.parent)
    with pytest.raises(Unsupported, match=r"--format onnx\|gguf"):
        load_engine(copy.parent / "config.json")
