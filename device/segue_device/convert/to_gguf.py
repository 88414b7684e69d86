"""The GGUF form, written here: one file that llama.cpp maps into memory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from segue_device.convert.directory import Source, make_model_directory
from segue_device.convert.gguf_architecture import Architecture
from segue_device.convert.gguf_tensors import write_tensors
from segue_device.convert.gguf_vocabulary import write_vocabulary
from segue_device.engines.llama_cpp import DIGEST_KEY, WEIGHTS_NAME
from segue_device.engines.manifest import Manifest

_MODULES = ("gguf", "safetensors", "torch", "transformers")


def convert_to_gguf(hf_dir: str | Path, out_dir: str | Path, *, precision: str = "fp32") -> Path:
    """Convert `hf_dir` into `out_dir` for llama.cpp and return `out_dir`.

    Nothing is done when `out_dir` is up to date; else it appears whole or not
    at all. `precision` is that of the weights: ``fp32``, ``int8`` (Q8_0) or
    ``int4`` (Q4_0, embeddings Q8_0).

    Raises NotFound or InvalidRequest when `hf_dir` is no model directory,
    `out_dir` holds something else or `precision` is unknown; Unsupported
    without the convert extra, for a model other than Llama, Mistral, Qwen2 and
    Qwen3 with full attention, or a tokenizer other than byte-level BPE.
    """
    return make_model_directory(
        hf_dir,
        out_dir,
        precision=precision,
        product=WEIGHTS_NAME,
        modules=_MODULES,
        build=_build,
    )


def _build(source: Source, staged: Path, scratch: Path) -> Manifest:
    from gguf import GGUFWriter

    architecture = Architecture.from_directory(source.directory)
    with closing(GGUFWriter(staged / WEIGHTS_NAME, architecture.name)) as writer:
        writer.add_name(source.directory.name)
        # Ties the file to the manifest beside it: the engine compares the two.
        writer.add_string(DIGEST_KEY, source.weights_digest)
        architecture.write(writer)
        write_vocabulary(writer, source.directory, architecture.vocab_size)
        write_tensors(writer, source.directory, architecture, source.precision)
    return source.manifest(
        max_context_tokens=architecture.max_context_tokens, head_dim=architecture.head_dim
    )
