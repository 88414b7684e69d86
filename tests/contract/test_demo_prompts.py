"""The committed prompts get one answer from torch, ONNX Runtime and llama.cpp: level 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from demos.split.runs import Prompt, load_prompts
from segue_cloud.engine.base import Chunk
from segue_cloud.engine.loading import load_engine as load_cloud_engine
from segue_cloud.engine.torch_engine import TorchEngine
from segue_device.convert import convert_to_gguf
from segue_device.engines import Cancel, DeviceEngine, load_engine
from segue_protocol.identity import exactness_level
from segue_protocol.sampling import Sampled, Sampling, sample
from segue_protocol.tokenizer import ChatTokenizer
from tests.processes import TINY, device_model

PROMPTS = load_prompts(TINY.parent / "demo_prompts.json")
NEAR_TIE = 1e-3

# Takes the next tokens, gives the logits [vocab] behind them.
Model = Callable[[list[int]], np.ndarray]


@pytest.fixture(scope="module")
def torch_engine() -> TorchEngine:
    return load_cloud_engine(TINY)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, DeviceEngine]]:
    gguf = convert_to_gguf(TINY, tmp_path_factory.mktemp("models") / "tiny-gguf")
    loaded = {"ONNX Runtime": load_engine(device_model()), "llama.cpp": load_engine(gguf)}
    yield loaded
    for engine in loaded.values():
        engine.close()


def in_cloud(engine: TorchEngine) -> Model:
    cells = np.zeros(engine.layout.shape(engine.max_context_tokens), engine.layout.storage_dtype)
    done = 0

    def model(ids: list[int]) -> np.ndarray:
        nonlocal done
        start, done = done, done + len(ids)
        return engine.forward(cells, [Chunk(ids, range(start, done), slice(0, done))])[0]

    return model


def on_device(engine: DeviceEngine) -> Model:
    engine.rewind(0)

    def model(ids: list[int]) -> np.ndarray:
        start = len(engine.cells)
        engine.append(ids, range(start, start + len(ids)), cancel=Cancel())
        return engine.logits()

    return model


class Answer:
    """Of one prompt, chosen by one model."""

    def __init__(self, prompt: Prompt, stop_token_ids: tuple[int, ...]) -> None:
        self.prompt_ids = ChatTokenizer.from_directory(TINY).encode_chat(prompt.messages)
        self.sampling: Sampling = replace(prompt.sampling, stop_token_ids=stop_token_ids)
        self.max_tokens = prompt.max_tokens
        self.ids: list[int] = []

    def choose(self, logits: np.ndarray) -> Sampled:
        return sample(
            logits,
            self.sampling,
            prompt_ids=self.prompt_ids,
            output_ids=self.ids,
            index=len(self.ids),
        )

    @property
    def over(self) -> bool:
        stopped = bool(self.ids) and self.ids[-1] in self.sampling.stop_token_ids
        return stopped or len(self.ids) == self.max_tokens


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.name)
def test_every_engine_chooses_what_torch_does(
    torch_engine: TorchEngine, engines: dict[str, DeviceEngine], prompt: Prompt
) -> None:
    """On torch's own answer, so that one early difference would not hide the later ones."""
    answer = Answer(prompt, torch_engine.identity.stop_token_ids)
    torch_model = in_cloud(torch_engine)
    others = {name: on_device(engine) for name, engine in engines.items()}
    near_ties, smallest_margin = 0, np.inf
    largest = dict.fromkeys(engines, 0.0)
    new = answer.prompt_ids
    while not answer.over:
        logits = torch_model(new)
        chosen = answer.choose(logits)
        smallest_margin = min(smallest_margin, chosen.margin)
        near_ties += chosen.margin <= NEAR_TIE
        for name, model in others.items():
            theirs = model(new)
            largest[name] = max(largest[name], float(np.abs(theirs - logits).max()))
            same = answer.choose(theirs).token_id == chosen.token_id
            assert same or chosen.margin <= NEAR_TIE, f"{name} differs at {len(answer.ids)}"
        new = [chosen.token_id]
        answer.ids += new
    print(
        f"{prompt.name}: {len(answer.prompt_ids)} + {len(answer.ids)} tokens, smallest margin "
        f"{smallest_margin:.1e}, near ties {near_ties}; largest difference of logits from torch: "
        + ", ".join(f"{name} {difference:.1e}" for name, difference in largest.items())
    )
    assert near_ties == 0, "committed prompts are chosen without: run demos.model.choose_seeds"
    assert max(largest.values()) < NEAR_TIE
    for engine in engines.values():
        assert exactness_level(torch_engine.identity, engine.identity) == 2


def test_an_answer_of_each_engine_alone(
    torch_engine: TorchEngine, engines: dict[str, DeviceEngine]
) -> None:
    answers = []
    for model in (in_cloud(torch_engine), *map(on_device, engines.values())):
        answer = Answer(PROMPTS[0], torch_engine.identity.stop_token_ids)
        new = answer.prompt_ids
        while not answer.over:
            new = [answer.choose(model(new)).token_id]
            answer.ids += new
        answers.append(answer.ids)
    assert len(answers[0]) > 100
    assert answers[0] == answers[1] == answers[2]
