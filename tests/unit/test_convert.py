"""Converting to ONNX without the model builder, which is replaced by a small graph.

tests/contract runs the real builder where its modules are installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from segue_device.cli import main
from segue_device.cli.convert import Precision
from segue_device.convert import convert_to_onnx, to_onnx
from segue_device.convert.directory import PRECISIONS
from segue_device.engines.manifest import Manifest
from segue_protocol.errors import InvalidRequest, NotFound, Unsupported
from segue_protocol.model_files import read_weights_digest


def write_graph(path: Path, *, empty_inputs: int = 0, **attributes: int) -> None:
    """One attention node with nine inputs and, as the builder leaves them, some empty ones."""
    names = ["query", "key", "value", "past_k", "past_v", "seqlens_k", "total", "cos", "sin"]
    node = helper.make_node(
        "GroupQueryAttention",
        names + [""] * empty_inputs,
        ["out"],
        name="attention",
        domain="com.microsoft",
        num_heads=1,
        kv_num_heads=1,
        **attributes,
    )
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in names]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n"])]
    onnx.save(helper.make_model(helper.make_graph([node], "g", inputs, outputs)), str(path))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "tiny"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "tokenizer.json").write_text("{}")
    (directory / "chat_template.jinja").write_text("hello")
    save_file({"weight": np.zeros(4, np.float32)}, directory / "model.safetensors")
    return directory


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts a builder in place that needs nothing; the precisions it was asked for."""
    asked: list[str] = []

    def build(source: Path, built: Path, cache: Path, precision: str) -> None:
        asked.append(precision)
        built.mkdir()
        write_graph(built / "model.onnx")
        (built / "model.onnx.data").write_bytes(b"weights")
        model = {"context_length": 2048, "decoder": {"head_size": 64}}
        (built / "genai_config.json").write_text(json.dumps({"model": model}))

    monkeypatch.setattr(to_onnx, "_MODULES", ())
    monkeypatch.setattr(to_onnx, "_run_builder", build)
    return asked


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_writes_a_directory_that_describes_itself(source: Path, builds: list[str]) -> None:
    out = source.parent / "deep" / "out"
    assert convert_to_onnx(source, out) == out
    assert names(out) == [
        "chat_template.jinja",
        "config.json",
        "model.onnx",
        "model.onnx.data",
        "segue_model.json",
        "tokenizer.json",
    ]
    assert Manifest.read(out) == Manifest(
        model="tiny",
        weights_digest=read_weights_digest(source).hex(),
        numerics="fp32",
        max_context_tokens=2048,
        head_dim=64,
    )
    assert names(out.parent) == ["out"], "nothing is left beside it"


def test_second_call_does_nothing(source: Path, builds: list[str]) -> None:
    out = source.parent / "out"
    convert_to_onnx(source, out)
    before = (out / "model.onnx").stat().st_mtime_ns
    convert_to_onnx(source, out)
    assert builds == ["fp32"]
    assert (out / "model.onnx").stat().st_mtime_ns == before
    (out / "model.onnx").unlink()
    convert_to_onnx(source, out)
    assert builds == ["fp32", "fp32"]


def change_weights(source: Path) -> None:
    save_file({"weight": np.ones(4, np.float32)}, source / "model.safetensors")


def change_template(source: Path) -> None:
    (source / "chat_template.jinja").write_text("good bye")


def drop_template(source: Path) -> None:
    (source / "chat_template.jinja").unlink()


@pytest.mark.parametrize("change", [change_weights, change_template, drop_template])
def test_converts_again_when_the_source_changed(
    source: Path, builds: list[str], change: Callable[[Path], None]
) -> None:
    out = source.parent / "out"
    convert_to_onnx(source, out)
    change(source)
    convert_to_onnx(source, out)
    assert builds == ["fp32", "fp32"]
    assert Manifest.read(out).weights_digest == read_weights_digest(source).hex()
    assert (out / "chat_template.jinja").exists() == (source / "chat_template.jinja").exists()
    convert_to_onnx(source, out, precision="int4")
    assert Manifest.read(out).numerics == "int4"


def test_failure_leaves_the_old_model(
    source: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = source.parent / "out"
    convert_to_onnx(source, out)

    def fail(graph: Path) -> None:
        raise Unsupported("a sliding window")

    monkeypatch.setattr(to_onnx, "expose_positions", fail)
    change_weights(source)
    before = Manifest.read(out)
    with pytest.raises(Unsupported):
        convert_to_onnx(source, out)
    assert Manifest.read(out) == before
    assert names(source.parent) == ["out", "tiny"]


def test_refuses_to_replace_what_it_did_not_make(source: Path, builds: list[str]) -> None:
    out = source.parent / "out"
    out.mkdir()
    convert_to_onnx(source, out)  # an empty directory is fine
    precious = source.parent / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(InvalidRequest, match="something else"):
        convert_to_onnx(source, precious)
    assert names(precious) == ["thesis.txt"]


def test_bad_source_and_precision(source: Path, builds: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="expected one of fp32, int8, int4"):
        convert_to_onnx(source, source.parent / "out", precision="fp8")
    with pytest.raises(NotFound, match=r"config\.json is missing"):
        convert_to_onnx(source.parent / "nowhere", source.parent / "out")
    (source / "model.safetensors").unlink()
    with pytest.raises(NotFound, match="safetensors"):
        convert_to_onnx(source, source.parent / "out")
    assert builds == []


def test_missing_extra_names_the_install(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_onnx, "_MODULES", ("onnx", "no_such_module"))
    with pytest.raises(Unsupported, match=r'no_such_module .*"segue-device\[convert\]"') as refused:
        convert_to_onnx(source, source.parent / "out")
    assert refused.value.reason == "EXTRA_MISSING"


def test_builder_that_fails_is_quoted(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real subprocess on a configuration no builder knows, or without its modules.
    monkeypatch.setattr(to_onnx, "_MODULES", ())
    words = r"(?s)could not convert .* Its last words: .*Error"
    with pytest.raises(Unsupported, match=words) as refused:
        convert_to_onnx(source, source.parent / "out")
    assert refused.value.reason == "BUILDER_FAILED"
    assert names(source.parent) == ["tiny"]


@pytest.mark.parametrize("empty_inputs", [0, 1, 3])
def test_exposes_positions_once(tmp_path: Path, empty_inputs: int) -> None:
    path = tmp_path / "model.onnx"
    write_graph(path, empty_inputs=empty_inputs, local_window_size=-1)
    for _ in range(2):
        to_onnx.expose_positions(path)
        model = onnx.load(str(path))
        assert [given.name for given in model.graph.input].count("position_ids") == 1
        assert list(model.graph.node[0].input)[8:10] == ["sin", "position_ids"]


def test_refuses_a_sliding_window(tmp_path: Path) -> None:
    write_graph(tmp_path / "model.onnx", local_window_size=128)
    with pytest.raises(Unsupported, match="sliding window"):
        to_onnx.expose_positions(tmp_path / "model.onnx")


def test_command_line(source: Path, builds: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = source.parent / "out"
    with pytest.raises(SystemExit, match="0"):
        main(["convert", str(source), str(out), "--precision", "int8"])
    assert capsys.readouterr().out.strip() == str(out)
    assert builds == ["int8"]
    with pytest.raises(SystemExit, match="1"):
        main(["convert", str(source.parent / "nowhere"), str(out)])
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "config.json is missing" in error
    with pytest.raises(SystemExit, match="2"):
        main(["convert", str(source), str(out), "--precision", "fp8"])


def test_command_line_offers_every_precision() -> None:
    assert get_args(Precision) == PRECISIONS


def test_the_module_is_the_same_command(source: Path) -> None:
    command = [sys.executable, "-m", "segue_device.convert", str(source), str(source), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "segue convert" in done.stdout
