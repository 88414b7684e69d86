"""Cells leave one engine as a file and go on in another as if they had never moved."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from segue_device.convert import convert_to_gguf
from segue_device.engines import (
    DeviceEngine,
    LlamaCppEngine,
    OnnxEngine,
    ReferenceDeviceEngine,
    load_engine,
)
from segue_device.engines.saved_cells import write_cells
from segue_protocol.errors import (
    ContextTooLong,
    IdentityMismatch,
    InternalError,
    InvalidRequest,
    SegueError,
    Unsupported,
)
from tests.contract import tiny_llama
from tests.contract.engine_cases import CHUNK, COMPACT, GAPPED, IDS, Make, after, assert_same


def exported(engine: DeviceEngine, cells: int) -> bytes:
    file = io.BytesIO()
    engine.export_cells(cells, file)
    return file.getvalue()


def assert_refused(engine: DeviceEngine, data: bytes) -> SegueError:
    """The file is refused and the cache is as empty as it was."""
    with pytest.raises(SegueError) as refused:
        engine.import_cells(io.BytesIO(data))
    assert list(engine.cells) == []
    with pytest.raises(InvalidRequest, match="no logits"):
        engine.logits()
    return refused.value


@pytest.mark.parametrize(
    ("positions", "cells"),
    # Behind 20 and 49 the gapped positions leap, and llama.cpp has moved the cell before.
    [(COMPACT, 1), (COMPACT, 40), (GAPPED, 20), (GAPPED, 21), (GAPPED, 49), (GAPPED, 95)],
)
def test_imported_cells_go_on_as_undivided(make: Make, positions: list[int], cells: int) -> None:
    rest = IDS[cells:], positions[cells:]
    source = make()
    whole = after(source, (IDS, positions))
    data = exported(source, cells)
    engine = make()
    engine.import_cells(io.BytesIO(data))
    assert list(engine.cells) == list(zip(positions, IDS, strict=True))[:cells]
    with pytest.raises(InvalidRequest, match="no logits"):
        engine.logits()
    got = after(engine, rest)
    assert_same(engine, got, whole)
    assert source.rewind(cells)
    again = after(source, rest)
    assert_same(engine, got, again)
    # Behind a gap llama.cpp's cells lie elsewhere in its cache, and sums have another order.
    assert positions is GAPPED or np.array_equal(got, again)
    assert exported(engine, cells) == data


def test_cells_may_go_on_elsewhere_than_they_did(make: Make) -> None:
    source, engine = make(), make()
    after(source, (IDS, GAPPED))
    engine.import_cells(io.BytesIO(exported(source, 49)))
    positions = [*GAPPED[:49], *range(80, 100)]
    expected = after(make(), (IDS[:69], positions))
    assert_same(engine, after(engine, (IDS[49:69], positions[49:])), expected)


def test_an_export_changes_nothing(make: Make) -> None:
    engine = make()
    before = after(engine, (IDS[:50], GAPPED[:50]))
    for cells in (50, 49, 7):
        exported(engine, cells)
    assert list(engine.cells) == list(zip(GAPPED, IDS, strict=True))[:50]
    assert np.array_equal(engine.logits(), before)
    expected = after(make(), (IDS, GAPPED))
    assert_same(engine, after(engine, (IDS[50:], GAPPED[50:])), expected)


def test_what_cannot_be_exported_or_imported_changes_nothing(make: Make) -> None:
    engine = make()
    before = after(engine, (IDS[:10], COMPACT[:10]))
    for cells in (0, -1, 11):
        with pytest.raises(InvalidRequest, match="expected 1 to 10"):
            exported(engine, cells)
    with pytest.raises(InvalidRequest, match="holds 10 cells") as refused:
        engine.import_cells(io.BytesIO(exported(engine, 5)))
    assert refused.value.reason == "CACHE_NOT_EMPTY"
    assert np.array_equal(engine.logits(), before)
    source = make()
    after(source, (IDS[:40], COMPACT[:40]))
    small = make(max_context_tokens=39)
    assert isinstance(assert_refused(small, exported(source, 40)), ContextTooLong)
    small.import_cells(io.BytesIO(exported(source, 39)))
    assert len(small.cells) == 39
    small.close()
    for use in (lambda: exported(small, 1), lambda: small.import_cells(io.BytesIO(b""))):
        with pytest.raises(InvalidRequest) as refused:
            use()
        assert refused.value.reason == "ENGINE_CLOSED"


def test_damage_is_seen_before_anything_changes(make: Make) -> None:
    source, engine = make(), make()
    expected = after(source, (IDS[:40], COMPACT[:40]))
    data = exported(source, 30)
    (header_bytes,) = struct.unpack_from("<I", data, 12)
    cuts = [0, 7, 8, 15, 16, 16 + header_bytes // 2, len(data) // 2, len(data) - 32, len(data) - 1]
    damaged = [data[:cut] for cut in cuts] + [data + b"\0", b"\0" + data]
    flips = [0, 7, 12, 15, 16, 40, 16 + header_bytes - 1, len(data) // 2, len(data) - 33]
    for place in [*flips, len(data) - 32, len(data) - 1]:
        damaged.append(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    for each in damaged:
        error = assert_refused(engine, each)
        assert isinstance(error, InvalidRequest)
        assert error.reason == "CELLS_DAMAGED"
    engine.import_cells(io.BytesIO(data))
    assert_same(engine, after(engine, (IDS[30:40], COMPACT[30:40])), expected)


def test_another_version_of_the_format_is_refused(make: Make) -> None:
    source = make()
    after(source, (IDS[:5], COMPACT[:5]))
    data = bytearray(exported(source, 5))
    struct.pack_into("<I", data, 8, 2)
    data[-32:] = hashlib.sha256(data[:-32]).digest()
    error = assert_refused(make(), bytes(data))
    assert isinstance(error, Unsupported)
    assert error.reason == "CELLS_FORMAT"
    assert "have format 2" in error.message


def test_cells_of_another_layout_are_refused(make: Make) -> None:
    engine = make()
    file = io.BytesIO()
    write_cells(
        file,
        identity=engine.identity,
        cells_format=engine.cells_format,
        cells=[(0, 5)],
        tensors={"other": np.zeros(3)},
    )
    error = assert_refused(engine, file.getvalue())
    assert error.reason == "CELLS_MISMATCH"
    assert "this engine's cache holds" in error.message


def test_a_header_tells_whose_the_cells_are(gguf_dir: Path) -> None:
    engine = LlamaCppEngine(gguf_dir / "model.gguf")
    after(engine, (IDS[:3], [0, 1, 7]))
    data = exported(engine, 3)
    (length,) = struct.unpack_from("<I", data, 12)
    header = json.loads(data[16 : 16 + length])
    assert header["weights_digest"] == engine.identity.weights_digest.hex()
    assert header["numerics"] == "fp32"
    assert header["positions"] == [0, 1, 7]
    assert header["token_ids"] == IDS[:3]
    engine.close()


def test_cells_of_another_engine_precision_or_model_are_refused(
    hf_dir: Path, onnx_dir: Path, gguf_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(onnx_dir, tmp_path / "other")
    manifest = tmp_path / "other" / "segue_model.json"
    manifest.write_text(
        json.dumps({**json.loads(manifest.read_text()), "weights_digest": "ab" * 32})
    )
    convert_to_gguf(hf_dir, tmp_path / "int8", precision="int8")
    weights = gguf_dir / "model.gguf"
    source = LlamaCppEngine(weights)
    after(source, (IDS[:5], COMPACT[:5]))
    for engine, factors in (
        (OnnxEngine(onnx_dir), {"cells_format"}),
        (OnnxEngine(tmp_path / "other"), {"cells_format", "weights_digest"}),
        (LlamaCppEngine(tmp_path / "int8" / "model.gguf"), {"numerics"}),
        (LlamaCppEngine(weights, half_precision_cache=True), {"numerics"}),
        (LlamaCppEngine(weights, flash_attention=True), {"numerics"}),
        (ReferenceDeviceEngine(), {"cells_format", "weights_digest", "vocab_size"}),
    ):
        error = assert_refused(engine, exported(source, 5))
        assert isinstance(error, IdentityMismatch)
        named = {"weights_digest", "vocab_size", "numerics", "cells_format"}
        assert {name for name in named if name in error.message} == factors
        engine.close()
    source.close()


def test_llama_cpp_itself_refuses_a_state(gguf_dir: Path) -> None:
    engine = LlamaCppEngine(gguf_dir / "model.gguf", chunk_tokens=CHUNK)
    after(engine, (IDS[:5], COMPACT[:5]))
    state = np.frombuffer(exported(engine, 5)[-20_000:], np.uint8)
    engine.rewind(0)
    file = io.BytesIO()
    write_cells(
        file,
        identity=engine.identity,
        cells_format=engine.cells_format,
        cells=[(0, 5)],
        tensors={"state": state},
    )
    assert isinstance(assert_refused(engine, file.getvalue()), InternalError)
    expected = after(load_engine(gguf_dir), (IDS, GAPPED))
    assert_same(engine, after(engine, (IDS, GAPPED)), expected)
    engine.close()


def test_a_graph_that_counts_positions_takes_no_gapped_cells(
    onnx_dir: Path, hf_dir: Path, tmp_path: Path
) -> None:
    tiny_llama.write_onnx_model(hf_dir, tmp_path / "plain")
    source, engine = OnnxEngine(onnx_dir), OnnxEngine(tmp_path / "plain")
    after(source, (IDS, GAPPED))
    assert assert_refused(engine, exported(source, 21)).reason == "GAPPED_POSITIONS"
    engine.import_cells(io.BytesIO(exported(source, 20)))
    source.close()
    engine.close()
