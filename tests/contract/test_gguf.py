"""What the converter writes is the same model and the same tokenizer to llama.cpp."""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from segue_device.cli import main
from segue_device.convert import convert_to_gguf
from segue_device.convert.gguf_vocabulary import _WORDS
from segue_device.engines import LlamaCppEngine
from segue_device.engines.manifest import Manifest
from segue_protocol.errors import InvalidRequest, NotFound, Unsupported
from segue_protocol.model_files import read_weights_digest
from segue_protocol.vocabulary import Vocabulary
from tests.contract.engine_cases import after, torch_logits
from tests.unit.engine_models import edit_config, write_model

IDS = np.random.default_rng(5).integers(3, 250, 60).tolist()
GAPPED = [*range(0, 20), *range(80, 120)]

BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
MERGED = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
CUTS = {
    "gpt-2": BYTE_LEVEL,
    "starcoder": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL]
    ),
    "llama-bpe": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS % "{1,3}"), "isolated"), MERGED]
    ),
    "qwen2": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS % ""), "isolated"), MERGED]
    ),
}
TEXTS = [
    "The theory of the other 1212 things, in 12 parts; there's the rest.",
    "  two  spaces\n\n\tand a tab \r\n at the end  ",
    "h\u00e9 \u00e9t\u00e9 na\u00efve \u4f60\u597d \U0001f600\u200d\u2764",
    "e\u0301 \u0967\u0968 \u00bd",
    "I'LL we're DON'T '12",
    "<s>the</s><think>the</think><pad>",
    "def f(x):\n    return x ** 12  # 3.1415",
]


def scaled(kind: str, **more: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **more}}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", scaled("linear", factor=4.0)),
        ("llama", scaled("llama3", original_max_position_embeddings=64, **LLAMA3)),
        ("mistral", {}),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": False}),
        ("qwen3", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "plain",
)
def test_every_family_agrees_with_torch(tmp_path: Path, family: str, changes: Any) -> None:
    source = write_model(tmp_path / "tiny", family, **changes)
    engine = LlamaCppEngine(convert_to_gguf(source, tmp_path / "gguf") / "model.gguf")
    for positions in (list(range(60)), GAPPED):
        engine.rewind(0)
        expected = torch_logits(source, IDS, positions)[-1]
        difference = float(np.abs(after(engine, (IDS, positions)) - expected).max())
        print(f"{family}: largest difference from torch {difference:.2e}")
        assert difference < 2e-4
    engine.close()


def test_bfloat16_weights_are_widened_exactly(tmp_path: Path) -> None:
    import torch

    source = write_model(tmp_path / "tiny", dtype=torch.bfloat16)
    engine = LlamaCppEngine(convert_to_gguf(source, tmp_path / "gguf") / "model.gguf")
    got = after(engine, (IDS, list(range(60))))
    assert np.abs(got - torch_logits(source, IDS, list(range(60)))[-1]).max() < 2e-4
    engine.close()


def test_weights_in_several_files(hf_dir: Path, gguf_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    source = tmp_path / "tiny"
    shutil.copytree(hf_dir, source, ignore=shutil.ignore_patterns("*.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(hf_dir)
    model.save_pretrained(source, max_shard_size="2MB")
    assert len(list(source.glob("*.safetensors"))) > 1
    engine = LlamaCppEngine(convert_to_gguf(source, tmp_path / "gguf") / "model.gguf")
    whole = LlamaCppEngine(gguf_dir / "model.gguf")
    compact = list(range(60))
    assert np.array_equal(after(engine, (IDS, compact)), after(whole, (IDS, compact)))
    engine.close()
    whole.close()
    next(source.glob("*-00002-*.safetensors")).unlink()
    with pytest.raises(NotFound, match="00002"):
        convert_to_gguf(source, tmp_path / "again")


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_weights_are_smaller_and_near(
    hf_dir: Path, gguf_dir: Path, tmp_path: Path, precision: str
) -> None:
    out = convert_to_gguf(hf_dir, tmp_path / "out", precision=precision)
    size = (out / "model.gguf").stat().st_size / (gguf_dir / "model.gguf").stat().st_size
    assert size < {"int8": 0.3, "int4": 0.2}[precision]
    engine = LlamaCppEngine(out / "model.gguf")
    assert engine.identity.numerics == precision
    expected = torch_logits(hf_dir, IDS, list(range(60)))[-1]
    got = after(engine, (IDS, list(range(60))))
    likeness = float(np.corrcoef(got, expected)[0, 1])
    print(f"{precision}: {size:.2f} of the bytes, correlation of the logits {likeness:.4f}")
    assert likeness > {"int8": 0.99, "int4": 0.6}[precision]
    engine.close()


class LlamaVocabulary:
    """llama.cpp's own tokenizer, from the GGUF file alone."""

    def __init__(self, path: Path) -> None:
        import llama_cpp

        self._llama = llama_cpp
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        ids = (self._llama.llama_token * (len(data) + 1))()
        count = self._llama.llama_tokenize(self._vocab, data, len(data), ids, len(ids), True, True)
        return list(ids[:count])

    def piece(self, token_id: int) -> bytes:
        text = ctypes.create_string_buffer(64)
        length = self._llama.llama_token_to_piece(self._vocab, token_id, text, 64, 0, True)
        return text.raw[:length]

    def close(self) -> None:
        self._llama.llama_model_free(self._model)


@pytest.fixture(params=CUTS)
def tokenizers(
    request: pytest.FixtureRequest, gguf_dir: Path, hf_dir: Path, tmp_path: Path
) -> Iterator[tuple[Path, LlamaVocabulary]]:
    """A source directory with one pre-tokenizer, and llama.cpp's view of it."""
    source = tmp_path / "tiny"
    shutil.copytree(hf_dir, source)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.pre_tokenizer = CUTS[request.param]
    tokenizer.add_tokens(["<think>"])
    spec = json.loads(tokenizer.to_str())
    spec["model"]["ignore_merges"] = request.param == "llama-bpe"
    (source / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    # Any engine quietens llama.cpp's log.
    LlamaCppEngine(gguf_dir / "model.gguf").close()
    theirs = LlamaVocabulary(convert_to_gguf(source, tmp_path / "gguf") / "model.gguf")
    yield source, theirs
    theirs.close()


def test_tokenizers_agree(tokenizers: tuple[Path, LlamaVocabulary]) -> None:
    source, theirs = tokenizers
    ours = Tokenizer.from_file(str(source / "tokenizer.json"))
    letters = np.array([*"the Th12\u00e90 \n\t'.s-\u4f60\u0301"])
    random = np.random.default_rng(11)
    texts = TEXTS + ["".join(random.choice(letters, random.integers(1, 40))) for _ in range(300)]
    for text in texts:
        assert theirs.encode(text) == ours.encode(text, add_special_tokens=False).ids, repr(text)
    vocabulary = Vocabulary.from_directory(source)
    for token_id in vocabulary:
        assert theirs.piece(token_id) == vocabulary.piece(token_id)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "gemma2"}, "MODEL_TYPE"),
        ({"model_type": None}, "MODEL_TYPE"),
        ({"quantization_config": {"quant_method": "awq"}}, "QUANTIZED"),
        ({"hidden_act": "gelu"}, "ACTIVATION"),
        (scaled("dynamic", factor=2.0), "ROPE_TYPE"),
        ({"model_type": "qwen2", **scaled("linear", factor=2.0)}, "ROPE_TYPE"),
        ({"model_type": "mistral", "sliding_window": 64}, "SLIDING_WINDOW"),
        ({"model_type": "qwen3", "num_hidden_layers": 1}, "TENSOR_UNKNOWN"),
    ],
)
def test_other_models_are_refused_by_name(tmp_path: Path, changes: Any, reason: str) -> None:
    source = edit_config(write_model(tmp_path / "tiny"), **changes)
    with pytest.raises(Unsupported) as refused:
        convert_to_gguf(source, tmp_path / "out")
    assert refused.value.reason == reason
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "the normalizer Lowercase"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre-tokenizer of its own.*Whitespace"),
        ({"pre_tokenizer": None}, "pre-tokenizer of its own"),
        ({"decoder": {"type": "Metaspace"}}, "no byte-level BPE"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path: Path, changes: Any, words: str) -> None:
    source = write_model(tmp_path / "tiny")
    path = source / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(Unsupported, match=words) as refused:
        convert_to_gguf(source, tmp_path / "out")
    assert refused.value.reason == "TOKENIZER_UNSUPPORTED"


def test_command_line(hf_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    made = []
    for precision in ("int8", "int8", "fp32"):
        options = ["--format", "gguf", "--precision", precision]
        with pytest.raises(SystemExit, match="0"):
            main(["convert", str(hf_dir), str(out), *options])
        assert capsys.readouterr().out.strip() == str(out)
        made.append((out / "model.gguf").stat().st_ino)
    assert made[0] == made[1] != made[2]
    assert Manifest.read(out) == Manifest(
        "tiny", read_weights_digest(hf_dir).hex(), "fp32", max_context_tokens=2048, head_dim=64
    )
    names = {path.name for path in hf_dir.iterdir()}
    assert {path.name for path in out.iterdir()} == names - {"model.safetensors"} | {
        "model.gguf",
        "segue_model.json",
    }


def test_damaged_sources_are_named(tmp_path: Path) -> None:
    source = write_model(tmp_path / "tiny")
    edit_config(source, vocab_size=200)
    with pytest.raises(InvalidRequest, match="a vocabulary of 200"):
        convert_to_gguf(source, tmp_path / "out")
    edit_config(source, vocab_size=320)
    (source / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InvalidRequest, match="no safetensors file"):
        convert_to_gguf(source, tmp_path / "out")
    edit_config(source, num_hidden_layers="two")
    with pytest.raises(InvalidRequest, match="num_hidden_layers"):
        convert_to_gguf(source, tmp_path / "out")
