"""The committed tiny model is what its card says."""

from __future__ import annotations

import json
import struct

from segue_protocol.identity import ModelIdentity
from segue_protocol.tokenizer import ChatTokenizer
from tests.processes import TINY


def test_shape_and_size() -> None:
    config = json.loads((TINY / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["head_dim"] == 64
    assert config["max_position_embeddings"] == 4096
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 10_500_000
    with (TINY / "model.safetensors").open("rb") as weights:
        (length,) = struct.unpack("<Q", weights.read(8))
        tensors = json.loads(weights.read(length))
    assert {each["dtype"] for name, each in tensors.items() if name != "__metadata__"} == {"BF16"}


def test_every_byte_can_be_said_and_a_turn_ends_with_the_stop_token() -> None:
    tokenizer = ChatTokenizer.from_directory(TINY)
    text = "Any text: \u00e9\u4e2d\U0001f600\x00\x7f 12345"
    ids = tokenizer.encode(text)
    assert tokenizer.vocabulary.decode(ids) == text
    rendered = tokenizer.render([{"role": "user", "content": "Hello"}])
    assert rendered.endswith("<|assistant|>")
    identity = ModelIdentity.from_directory(TINY, numerics="fp32")
    assert identity.stop_token_ids == (tokenizer.encode("<|eos|>")[0],)
