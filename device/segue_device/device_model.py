"""A model on this device: its engine, its tokenizer, its speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from segue_device.engines import DeviceEngine, EngineRunner, load_engine
from segue_device.engines.runner import Runner
from segue_device.profile import measure_profile
from segue_protocol.identity import ModelIdentity
from segue_protocol.timeline import DeviceProfile
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Match:
    """The first `cells` of a cache hold what takes part of a prompt's first `tokens`."""

    cells: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """Everything a client needs to run a model here.

    `tokenizer` may be absent where only token ids go in; `vocabulary` gives the
    answer its text.
    """

    runner: Runner
    profile: DeviceProfile
    vocabulary: Vocabulary | None = None
    tokenizer: ChatTokenizer | None = None

    @classmethod
    async def load(
        cls, path: str | Path, *, profile: DeviceProfile | None = None, **options: Any
    ) -> DeviceModel:
        """Load a converted model; `options` are those of its engine.

        The profile is measured (a second or so) when it is not given. Raises
        what :func:`segue_device.engines.load_engine` and the tokenizer raise.
        """
        engine, tokenizer = await anyio.to_thread.run_sync(_read, Path(path), options)
        runner = EngineRunner(engine)
        try:
            measured = profile or await measure_profile(runner)
        except BaseException:
            await runner.close()
            raise
        return cls(runner, measured, tokenizer.vocabulary, tokenizer)

    @property
    def identity(self) -> ModelIdentity:
        return self.runner.identity

    @property
    def max_context_tokens(self) -> int:
        return self.runner.capabilities.max_context_tokens

    def match(self, prompt_ids: Sequence[int]) -> Match:
        """What of the prompt is in the engine's cache, compared by position.

        Positions that a refinement left out count as there. The prompt's last
        token is always appended anew: its logits are needed.
        """
        cells = tokens = 0
        for position, token in self.runner.cells:
            if position >= len(prompt_ids) - 1 or prompt_ids[position] != token:
                break
            cells, tokens = cells + 1, position + 1
        return Match(cells, tokens)


def _read(path: Path, options: dict[str, Any]) -> tuple[DeviceEngine, ChatTokenizer]:
    """Blocking. The tokenizer lies beside the weights, also of a single file."""
    directory = path if path.is_dir() else path.parent
    return load_engine(path, **options), ChatTokenizer.from_directory(directory)
