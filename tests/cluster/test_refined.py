"""A refined prompt over real processes and real device engines (exactness level 3)."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from demos.cluster import Cluster
from demos.model.recall import is_exact, recall_prompt
from segue_device import AsyncClient, DeviceModel, DeviceProfile, Mode, Refinement, Token
from segue_device.convert import convert_to_gguf
from segue_device.engines import Cancel, DeviceEngine, EngineRunner, ThrottledEngine, load_engine
from segue_protocol.tokenizer import ChatTokenizer
from tests.processes import TINY, device_model, is_idle, wait_for

PROMPT_TOKENS = 600
KEEP_RATIO = 0.3
CREDIT = 3
# So slow that the list is there long before the device has prefilled the prompt.
SLOW = DeviceProfile(0.0, 1 / 300, 0.0, 0.01, 0.02)


@pytest.fixture(params=["onnx", "llama-cpp"])
def model_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "onnx":
        return device_model()
    return convert_to_gguf(TINY, tmp_path / "gguf")


def test_the_answer_goes_on_from_what_was_kept(cluster: Cluster, model_path: Path) -> None:
    asyncio.run(_answer(cluster, model_path))


async def _answer(cluster: Cluster, model_path: Path) -> None:
    tokenizer = ChatTokenizer.from_directory(TINY)
    example = recall_prompt(
        random.Random("refined"), lambda m: len(tokenizer.encode_chat(m)), PROMPT_TOKENS
    )
    ids = list(tokenizer.encode_chat(example.messages))
    # Chunks so small that the list can leave out nearly all that it may.
    engine = ThrottledEngine(load_engine(model_path, chunk_tokens=16), SLOW)
    model = DeviceModel(EngineRunner(engine), SLOW, tokenizer.vocabulary, tokenizer)
    async with AsyncClient(cloud=cluster.address, model=model, reuse_kv=False) as client:
        stream = client.stream(
            messages=example.messages,
            max_tokens=24,
            keep_ratio=KEEP_RATIO,
            credit_through=CREDIT,
            mode=Mode.SPLIT,
        )
        async with stream as answer:
            seen = [event async for event in answer.raw()]
        result = seen[-1].result
        cells = list(engine.cells)
    kinds = [type(event) for event in seen]
    assert kinds.index(Refinement) < kinds.index(Token), "the list comes before the first token"
    assert is_exact(example, result.text), result.text
    assert result.takeover_index == CREDIT
    assert result.usage.device_tokens > 0
    timings = result.cloud.timings
    assert 0 < timings.list_s < timings.prefill_s

    kept = [(position, token) for position, token in cells if position < len(ids)]
    assert len(kept) == result.usage.kept_tokens < 0.7 * len(ids)
    assert all(ids[position] == token for position, token in kept)
    assert len({position for position, _ in kept}) == len(kept), "no cell twice"
    suffix = _teacher_forced(load_engine(model_path), kept, len(ids), result.token_ids)
    assert suffix[CREDIT:] == list(result.token_ids)[CREDIT:]
    await wait_for(cluster, is_idle)


def _teacher_forced(
    engine: DeviceEngine, kept: list[tuple[int, int]], prompt_tokens: int, output: tuple[int, ...]
) -> list[int]:
    """The likeliest token at every index behind `output` so far."""
    positions, ids = zip(*kept, strict=True)
    engine.append(ids, positions, cancel=Cancel())
    found = []
    for index, token in enumerate(output):
        found.append(int(engine.logits().argmax()))
        engine.append([token], [prompt_tokens + index], cancel=Cancel())
    engine.close()
    return found
