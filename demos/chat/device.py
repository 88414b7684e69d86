"""This computer in the part of a device: a slowed engine behind an emulated network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demos.chat.network import EmulatedNetwork
from demos.chat.settings import Settings
from segue_device import AnswerStream, AsyncClient, DeviceModel, Mode
from segue_device.engines import EngineRunner, ThrottledEngine, load_engine
from segue_protocol.errors import InvalidRequest
from segue_protocol.tokenizer import ChatTokenizer


class Device:
    """One engine, for one answer at a time; every answer has a speed of its own.

    It is loaded from a converted model and closed by the caller.
    """

    def __init__(self, model: Path, network: EmulatedNetwork) -> None:
        tokenizer = ChatTokenizer.from_directory(model)
        profile = Settings().profile
        self._network = network
        self._engine = ThrottledEngine(load_engine(model), profile)
        runner = EngineRunner(self._engine)
        self._model = DeviceModel(runner, profile, tokenizer.vocabulary, tokenizer)
        self._in_use = False

    def stream(self, settings: Settings, *, reuse_kv: bool = True, **request: Any) -> AnswerStream:
        """An answer made as `settings` say. Raises InvalidRequest while another runs here."""
        if settings.mode is not Mode.ONLY_IN_CLOUD:
            self._require_free()
            self._engine.slow_to(settings.profile)
        self._network.set_round_trip(settings.rtt_ms / 1e3)
        client = AsyncClient(
            cloud=self._network,
            model=dataclasses.replace(self._model, profile=settings.profile),
            reuse_kv=reuse_kv,
        )
        # Only a split answer has somebody to choose, and somebody to read less.
        keep_ratio = settings.keep_ratio if settings.mode is Mode.SPLIT else None
        return client.stream(
            mode=settings.mode, max_tokens=settings.max_tokens, keep_ratio=keep_ratio, **request
        )

    @contextmanager
    def held_by(self, stream: AnswerStream) -> Iterator[None]:
        """The engine belongs to `stream`, if it needs one, for the length of the block."""
        if not stream.uses_engine:
            yield
            return
        self._require_free()
        self._in_use = True
        try:
            yield
        finally:
            self._in_use = False

    async def aclose(self) -> None:
        """Cancel what runs and close the engine."""
        await self._model.runner.close()

    def _require_free(self) -> None:
        if self._in_use:
            raise InvalidRequest(
                "this device is writing another answer, perhaps for another tab; "
                "stop that one or wait for its end",
                reason="ENGINE_BUSY",
            )
