"""The committed tiny model is what its card says."""

from __future__ import annotations

import asyncio
import json
import random
import struct

from segue_device import AsyncClient, Pacing
from segue_protocol.identity import ModelIdentity
from segue_protocol.tokenizer import ChatTokenizer
from tests.processes import TINY, device_model

NAMES = ("brave-swan", "clever-moose", "icy-hare", "amber-fox")


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


def test_it_recalls_a_fact_from_its_prompt() -> None:
    """Greedy, on the device's own engine; the card says how often."""

    async def main() -> int:
        rng, right = random.Random(1), 0
        async with AsyncClient(model=device_model()) as client:
            for _ in range(8):
                codes = {name: f"{rng.randrange(10_000):04d}" for name in NAMES}
                asked = rng.choice(NAMES)
                facts = " ".join(f"The code for {name} is {code}." for name, code in codes.items())
                question = f"{facts}\nWhat is the code for {asked}?"
                async with client.stream(
                    messages=[{"role": "user", "content": question}],
                    max_tokens=20,
                    mode="only_on_device",
                    pacing=Pacing.off(),
                ) as answer:
                    right += f" {codes[asked]}." in (await answer.final()).text
        return right

    assert asyncio.run(main()) >= 6
