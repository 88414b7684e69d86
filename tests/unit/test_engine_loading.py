"""A directory becomes an engine, or a refusal names what is in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from segue_cloud.engine.loading import load_engine
from segue_cloud.engine.support import SUPPORTED
from segue_protocol.errors import InvalidRequest, NotFound, Unsupported
from segue_protocol.identity import ModelIdentity
from tests.unit.engine_models import FAMILIES, edit_config, write_model

DYNAMIC_ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}


@pytest.fixture
def model(tmp_path) -> Path:
    return write_model(tmp_path / "tiny")


def test_the_engine_says_what_it_is(model) -> None:
    engine = load_engine(model)
    assert engine.identity == ModelIdentity.from_directory(model, numerics="fp32")
    assert engine.layout.shape(5) == (2, 2, 5, 2, 64)
    assert (engine.layout.dtype, engine.max_context_tokens) == ("float32", 256)
    assert set(SUPPORTED) == set(FAMILIES)


def test_bfloat16_weights_are_widened_exactly(tmp_path) -> None:
    directory = write_model(tmp_path / "tiny", dtype=torch.bfloat16)
    stored = load_file(directory / "model.safetensors")
    loaded = load_engine(directory).model.state_dict()
    for name, tensor in stored.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(loaded[name], tensor.float())


def test_a_head_dim_that_is_not_stated_is_computed(tmp_path) -> None:
    assert load_engine(write_model(tmp_path / "tiny", "qwen2")).layout.head_dim == 64


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(model, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(NotFound, match=name.replace("model.", "")):
        load_engine(model)


def test_a_missing_directory_is_named(tmp_path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        load_engine(tmp_path / "nowhere")


def _replace_weights(model: Path, change) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "missing tensors, e.g. model.norm.weight"),
        (lambda t: t.update(extra=torch.ones(1)), "unexpected tensors, e.g. extra"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(3)}),
            r"mismatched tensors, e\.g\. .*model\.norm\.weight",
        ),
    ],
    ids=["missing", "unexpected", "mismatched"],
)
def test_weights_that_do_not_fit_the_config_are_refused(model, change, message) -> None:
    _replace_weights(model, change)
    with pytest.raises(InvalidRequest, match=message):
        load_engine(model)


def test_damaged_files_are_refused(model) -> None:
    edit_config(model, num_hidden_layers="two")
    with pytest.raises(InvalidRequest, match="num_hidden_layers"):
        load_engine(model)
    edit_config(model, num_hidden_layers=2)
    (model / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InvalidRequest, match="cannot be loaded"):
        load_engine(model)
    (model / "config.json").write_text("{")
    with pytest.raises(InvalidRequest, match=r"config\.json"):
        load_engine(model)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"model_type": "deepseek_v3"}, "MODEL_TYPE", "deepseek_v3.*MLA"),
        ({"model_type": "mamba"}, "MODEL_TYPE", "mamba.*recurrent"),
        ({"model_type": "jamba"}, "MODEL_TYPE", "jamba.*hybrid"),
        ({"model_type": "t5"}, "MODEL_TYPE", "t5.*encoder-decoder"),
        ({"is_encoder_decoder": True}, "MODEL_TYPE", "encoder-decoder"),
        ({"model_type": "gemma2"}, "MODEL_TYPE", "gemma2.*sliding-window"),
        ({"model_type": "of tomorrow"}, "MODEL_TYPE", "of tomorrow.*unknown.*llama, mistral"),
        ({"model_type": None}, "MODEL_TYPE", "unknown family"),
        ({"quantization_config": {"quant_method": "awq"}}, "QUANTIZED", "awq"),
        ({"rope_parameters": DYNAMIC_ROPE}, "ROPE_TYPE", "'dynamic'"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(model, changes, reason, words) -> None:
    edit_config(model, **changes)
    with pytest.raises(Unsupported, match=words) as raised:
        load_engine(model)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("family", "window", "refused"),
    [
        ("mistral", {"sliding_window": 128}, True),
        ("mistral", {"sliding_window": 256}, False),
        ("qwen2", {"sliding_window": 128, "use_sliding_window": False}, False),
        ("qwen2", {"sliding_window": 128, "use_sliding_window": True}, True),
        ("qwen3", {"sliding_window": 128, "use_sliding_window": True}, True),
    ],
)
def test_a_sliding_window_is_refused_where_it_hides_something(
    tmp_path, family, window, refused
) -> None:
    directory = write_model(tmp_path / "tiny", family, **window)
    if not refused:
        load_engine(directory)
        return
    with pytest.raises(Unsupported, match="window of 128 tokens in a context of 256") as raised:
        load_engine(directory)
    assert raised.value.reason == "SLIDING_WINDOW"


def test_code_beside_the_weights_is_not_run(model) -> None:
    (model / "evil.py").write_text(f"open({str(model / 'ran')!r}, 'w')")
    edit_config(model, auto_map={"AutoConfig": "evil.A", "AutoModelForCausalLM": "evil.B"})
    load_engine(model)
    assert not (model / "ran").exists()


def test_pickled_weights_are_not_read(model) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(NotFound, match="safetensors"):
        load_engine(model)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dtype": "float8"}, InvalidRequest, "'float8', expected one of float32"),
        ({"threads": 0}, InvalidRequest, "threads is 0"),
        ({"device": "toaster"}, InvalidRequest, "'toaster', expected one of cpu"),
        ({"device": "npu"}, Unsupported, "cannot use the device 'npu'"),
    ],
)
def test_arguments_are_checked(model, arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        load_engine(model, **arguments)


def test_nothing_is_asked_of_the_network(model, monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr("socket.socket.connect", refuse)
    load_engine(model)
    assert json.loads((model / "config.json").read_text())["model_type"] == "llama"
