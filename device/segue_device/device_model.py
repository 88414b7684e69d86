"""A model on this device: its engine, its tokenizer, its speed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread

from segue_device.engines import Cancel, DeviceEngine, EngineRunner, load_engine
from segue_device.engines.runner import Runner
from segue_device.learning import DeviceSpeed, Seen
from segue_device.prefix_store import PrefixStore, leading_cells
from segue_device.profile import measure_profile
from segue_device.profile_store import ProfileKey, find_profile, store_profile
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.identity import ModelIdentity
from segue_protocol.timeline import DeviceProfile
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Match:
    """The first `cells` of a cache hold what takes part of a prompt's first `tokens`."""

    cells: int = 0
    tokens: int = 0


@dataclass(slots=True)
class DeviceModel:
    """Everything a client needs to run a model here.

    `tokenizer` may be absent where only token ids go in; `vocabulary` gives the
    answer its text. `prefix_store` keeps the cells of prompts' beginnings. With
    `learns` the profile follows what answers take; where it is `stored_as` one of
    the user's, the stored one does, too.
    """

    runner: Runner
    profile: DeviceProfile
    vocabulary: Vocabulary | None = None
    tokenizer: ChatTokenizer | None = None
    prefix_store: PrefixStore | None = None
    learns: bool = False
    stored_as: ProfileKey | None = None
    _speed: DeviceSpeed = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._speed = DeviceSpeed.of(self.profile)

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
        if `keep_profile` says so; it is learnt on, while one that is given stays as
        it is. `prefix_store` is a store or its directory,
        see `keep_prefix`. Raises what
        :func:`segue_device.engines.load_engine` and the tokenizer raise, and
        with `keep_profile` what :func:`segue_device.profile_store.store_profile`
        raises.
        """
        engine, tokenizer = await anyio.to_thread.run_sync(_read, Path(path), options)
        key = ProfileKey.of(engine, options)
        runner = EngineRunner(engine)
        learns = profile is None
        stored_as = None
        try:
            if profile is None:
                profile = await anyio.to_thread.run_sync(find_profile, key)
                stored_as = key if profile is not None else None
            if profile is None:
                profile = (await measure_profile(runner)).profile
                if keep_profile:
                    await anyio.to_thread.run_sync(store_profile, key, profile)
                    stored_as = key
        except BaseException:
            await runner.close()
            raise
        if prefix_store is not None and not isinstance(prefix_store, PrefixStore):
            prefix_store = PrefixStore(prefix_store)
        return cls(
            runner, profile, tokenizer.vocabulary, tokenizer, prefix_store, learns, stored_as
        )

    @property
    def identity(self) -> ModelIdentity:
        return self.runner.identity

    @property
    def max_context_tokens(self) -> int:
        return self.runner.capabilities.max_context_tokens

    async def learn(self, seen: Seen) -> None:
        """Let the profile follow what an answer took."""
        if not self.learns or seen == Seen():
            return
        self._speed = self._speed.after(seen)
        self.profile = self._speed.profile
        if self.stored_as is not None:
            # An answer does not fail for it: the next one learns and stores the same.
            with suppress(SegueError):
                await anyio.to_thread.run_sync(store_profile, self.stored_as, self.profile)

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
