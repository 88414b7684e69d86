"""A model on this device: its engine, its tokenizer, its speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from segue_device.engines import Cancel, DeviceEngine, EngineRunner, load_engine
from segue_device.engines.runner import Runner
from segue_device.prefix_store import PrefixStore, leading_cells
from segue_device.profile import measure_profile
from segue_device.profile_store import ProfileKey, find_profile, store_profile
from segue_protocol.errors import InvalidRequest
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
    answer its text. `prefix_store` keeps the cells of prompts' beginnings.
    """

    runner: Runner
    profile: DeviceProfile
    vocabulary: Vocabulary | None = None
    tokenizer: ChatTokenizer | None = None
    prefix_store: PrefixStore | None = None

    @classmethod
    async def load(
        cls,
        path: str | Path,
        *,
        profile: DeviceProfile | None = None,
        keep_profile: bool = False,
        prefix_store: PrefixStore | str | Path | None = None,
        **options: Any,
    ) -> DeviceModel:
        """Load a converted model; `options` are those of its engine.

        A profile that is not given is the one stored for this model (by
        ``segue profile``), else it is measured, in a second or so, and stored
        if `keep_profile` says so. `prefix_store` is a store or its directory,
        see `keep_prefix`. Raises what
        :func:`segue_device.engines.load_engine` and the tokenizer raise, and
        with `keep_profile` what :func:`segue_device.profile_store.store_profile`
        raises.
        """
        engine, tokenizer = await anyio.to_thread.run_sync(_read, Path(path), options)
        key = ProfileKey.of(engine, options)
        runner = EngineRunner(engine)
        try:
            profile = profile or await anyio.to_thread.run_sync(find_profile, key)
            if profile is None:
                profile = (await measure_profile(runner)).profile
                if keep_profile:
                    await anyio.to_thread.run_sync(store_profile, key, profile)
        except BaseException:
            await runner.close()
            raise
        if prefix_store is not None and not isinstance(prefix_store, PrefixStore):
            prefix_store = PrefixStore(prefix_store)
        return cls(runner, profile, tokenizer.vocabulary, tokenizer, prefix_store)

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

    async def keep_prefix(self, ids: Sequence[int]) -> None:
        """Keep the cells of `ids`, with which prompts to come begin, for later launches.

        Computes what neither the cache nor the store has; the cache then begins
        with them. Not while an answer uses the engine. Raises InvalidRequest
        without a store, and what `append` and :meth:`PrefixStore.save` raise.
        """
        store = self.prefix_store
        if store is None:
            raise InvalidRequest(
                "this model keeps no prefixes; load it with prefix_store=DIRECTORY",
                reason="NO_PREFIX_STORE",
            )
        there = leading_cells(self.runner.cells, ids)
        if there < len(ids):
            await self.runner.use(lambda engine: store.restore(engine, ids, longer_than=there))
            there = leading_cells(self.runner.cells, ids)
        if there < len(ids):
            await self.runner.rewind(there)
            await self.runner.append(ids[there:], range(there, len(ids)), cancel=Cancel())
        await self.runner.use(lambda engine: store.save(engine, ids))


def _read(path: Path, options: dict[str, Any]) -> tuple[DeviceEngine, ChatTokenizer]:
    """Blocking. The tokenizer lies beside the weights, also of a single file."""
    directory = path if path.is_dir() else path.parent
    return load_engine(path, **options), ChatTokenizer.from_directory(directory)
