"""Make an ONNX model directory from a Hugging Face one, once and offline.

``python -m segue_device.convert HF_DIR OUT_DIR``, or :func:`convert_to_onnx`.
The graph comes from onnxruntime-genai's model builder and gets one more input,
``position_ids``; then plain onnxruntime runs it, and neither torch nor the
builder is needed any more.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segue_device.engines.checks import missing_extra
from segue_device.engines.manifest import NAME as MANIFEST_NAME
from segue_device.engines.manifest import Manifest
from segue_device.engines.onnx import GRAPH_NAME
from segue_protocol.errors import InvalidRequest, SegueError, Unsupported
from segue_protocol.model_files import read_json, read_weights_digest

PRECISIONS = ("fp32", "int8", "int4")

_REQUIRED_FILES = ("config.json", "tokenizer.json")
_COPIED_FILES = (
    *_REQUIRED_FILES,
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
# onnx_ir is imported by the builder, although onnxruntime-genai does not require it.
_MODULES = ("onnx", "onnx_ir", "onnxruntime_genai", "safetensors", "torch", "transformers")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_POSITION_INPUT = 9  # of com.microsoft.GroupQueryAttention


def convert_to_onnx(hf_dir: str | Path, out_dir: str | Path, *, precision: str = "fp32") -> Path:
    """Convert `hf_dir` into `out_dir` and return `out_dir`.

    Does nothing when `out_dir` was made from the same weights, tokenizer and
    configuration already. Otherwise `out_dir` appears whole or not at all: the
    work happens beside it, under a name of its own. `precision` is that of
    the weights: ``fp32``, ``int8`` or ``int4``.

    Raises NotFound or InvalidRequest when `hf_dir` is no model directory,
    `out_dir` holds something else or `precision` is unknown; Unsupported
    without the convert extra or for a model the builder does not know.
    """
    source, target = Path(hf_dir).resolve(), Path(out_dir).resolve()
    if precision not in PRECISIONS:
        raise InvalidRequest(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    for name in _REQUIRED_FILES:
        read_json(source, name)
    digest = read_weights_digest(source).hex()
    if _is_current(target, source, digest, precision):
        return target
    _check_may_write(target)
    missing = [name for name in _MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise missing_extra("convert", *missing)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        built, staged, old = (Path(scratch) / name for name in ("built", "staged", "old"))
        _run_builder(source, built, Path(scratch) / "cache", precision)
        expose_positions(built / GRAPH_NAME)
        staged.mkdir()
        for path in built.glob(f"{GRAPH_NAME}*"):
            os.replace(path, staged / path.name)
        for name in _COPIED_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, staged / name)
        _manifest(built, source, digest, precision).write(staged)
        # A directory that is not empty cannot be replaced, only moved away.
        if target.exists():
            os.replace(target, old)
        os.replace(staged, target)
    return target


def expose_positions(graph_path: Path) -> None:
    """Give the graph an input ``position_ids`` [batch, tokens] that its attention obeys.

    The builder has GroupQueryAttention count positions from the number of
    cells, which is wrong behind a gap. The operator has an input for them that
    the builder leaves empty. A graph that has the input already stays as it is.
    """
    import onnx

    # Weights stay in the file beside the graph, which refers to them by name.
    model = onnx.load(str(graph_path), load_external_data=False)
    attention = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    for node in attention:
        attributes = {each.name: each.i for each in node.attribute}
        if attributes.get("local_window_size", -1) > 0:
            raise Unsupported(
                f"{node.name} attends to a sliding window; only models with full attention "
                "in every layer can be converted",
                reason="SLIDING_WINDOW",
            )
    if not attention or "position_ids" in {given.name for given in model.graph.input}:
        return
    for node in attention:
        padding = [""] * (_POSITION_INPUT + 1 - len(node.input))
        node.input.extend(padding)
        node.input[_POSITION_INPUT] = "position_ids"
    shape = ["batch_size", "sequence_length"]
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("position_ids", onnx.TensorProto.INT64, shape)
    )
    onnx.save(model, str(graph_path))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m segue_device.convert", description=__doc__)
    parser.add_argument("hf_dir", type=Path, help="Hugging Face model directory")
    parser.add_argument("out_dir", type=Path, help="ONNX model directory to make")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    given = parser.parse_args(arguments)
    try:
        print(convert_to_onnx(given.hf_dir, given.out_dir, precision=given.precision))
    except SegueError as error:
        print(f"{error.reason}: {error}", file=sys.stderr)
        return 1
    return 0


def _is_current(target: Path, source: Path, digest: str, precision: str) -> bool:
    try:
        manifest = Manifest.read(target)
    except SegueError:
        return False
    made_from = (manifest.model, manifest.weights_digest, manifest.numerics)
    return made_from == (source.name, digest, precision) and all(
        (source / name).is_file() == (target / name).is_file()
        and (not (source / name).is_file() or filecmp.cmp(source / name, target / name, False))
        for name in _COPIED_FILES
    )


def _check_may_write(target: Path) -> None:
    """Refuse to replace a directory that no conversion has made."""
    ours = (target / MANIFEST_NAME).is_file()
    if target.exists() and not ours and not (target.is_dir() and not any(target.iterdir())):
        raise InvalidRequest(
            f"{target} holds something else than a converted model; "
            "name a directory that is empty or does not exist"
        )


def _run_builder(source: Path, built: Path, cache: Path, precision: str) -> None:
    # A process of its own: the builder changes sys.path, prints, and keeps torch in memory.
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    command += ["-i", str(source), "-o", str(built), "-c", str(cache)]
    command += ["-p", precision, "-e", "cpu"]
    # Logits of the last position only: a prompt's other rows are never looked at.
    command += ["--extra_options", "prune_lm_head=true"]
    done = subprocess.run(
        command,
        env={**os.environ, **_OFFLINE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0 or not (built / GRAPH_NAME).is_file():
        raise Unsupported(
            f"onnxruntime-genai's model builder could not convert {source} (exit status "
            f"{done.returncode}); expected a Llama, Mistral, Qwen2 or Qwen3 model. Its last words: "
            f"{done.stdout[-2000:].strip()}",
            reason="BUILDER_FAILED",
        )


def _manifest(built: Path, source: Path, digest: str, precision: str) -> Manifest:
    model: dict[str, Any] = read_json(built, "genai_config.json")["model"]
    return Manifest(
        model=source.name,
        weights_digest=digest,
        numerics=precision,
        max_context_tokens=model["context_length"],
        head_dim=model["decoder"]["head_size"],
    )


if __name__ == "__main__":
    sys.exit(main())
