"""The ONNX form: a graph from onnxruntime-genai's model builder, with one more input.

With ``position_ids`` plain onnxruntime runs it, and neither torch nor the
builder is needed any more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from segue_device.convert.directory import Source, make_model_directory
from segue_device.engines.manifest import GRAPH_NAME, Manifest
from segue_protocol.errors import Unsupported
from segue_protocol.model_files import read_json

# onnx_ir is imported by the builder, although onnxruntime-genai does not require it.
_MODULES = ("onnx", "onnx_ir", "onnxruntime_genai", "safetensors", "torch", "transformers")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_POSITION_INPUT = 9  # of com.microsoft.GroupQueryAttention


def convert_to_onnx(hf_dir: str | Path, out_dir: str | Path, *, precision: str = "fp32") -> Path:
    """Convert `hf_dir` into `out_dir` for ONNX Runtime and return `out_dir`.

    Nothing is done when `out_dir` is up to date; else it appears whole or not
    at all. `precision` is that of the weights: ``fp32``, ``int8`` or ``int4``.

    Raises NotFound or InvalidRequest when `hf_dir` is no model directory,
    `out_dir` holds something else or `precision` is unknown; Unsupported
    without the convert extra or for a model the builder does not know.
    """
    return make_model_directory(
        hf_dir,
        out_dir,
        precision=precision,
        product=GRAPH_NAME,
        modules=_MODULES,
        build=_build,
    )


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


def _build(source: Source, staged: Path, scratch: Path) -> Manifest:
    built = scratch / "built"
    _run_builder(source.directory, built, scratch / "cache", source.precision)
    expose_positions(built / GRAPH_NAME)
    # The builder's own settings and copies of the tokenizer stay behind.
    for path in built.glob(f"{GRAPH_NAME}*"):
        os.replace(path, staged / path.name)
    model: dict[str, Any] = read_json(built, "genai_config.json")["model"]
    return source.manifest(
        max_context_tokens=model["context_length"], head_dim=model["decoder"]["head_size"]
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
