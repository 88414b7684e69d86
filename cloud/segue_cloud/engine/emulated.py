"""An emulated accelerator: the time of a real one, tokens of the reference model.

Everything around the engine is real: cells, pages, transfer, digests and
scheduling. Only how long a step takes comes from a stored profile and is
slept, so that many instances can be judged on a few cores. The KV of a token
takes 16 bytes here: how long transfers take is not emulated.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segue_cloud.engine.base import Chunk, LayerWatch
from segue_cloud.engine.reference import ReferenceEngine, show_only_layer
from segue_cloud.kv.layout import Cells
from segue_cloud.profiles.base import CloudProfile
from segue_protocol.errors import InvalidRequest
from segue_protocol.identity import ModelIdentity
from segue_protocol.reference import DEFAULT_VOCAB_SIZE, STOP_ID, reference_identity

# Says in every place where an identity is shown that nothing was computed.
MARK = "emulated accelerator"


class EmulatedEngine:
    """A :class:`~segue_cloud.engine.base.CloudEngine` with the speed of `profile`.

    `sleep` lets the time of a step pass: in the engine's own thread, or, with
    :meth:`InlineCompute.owe`, on the clock of an event loop. What `clock` says
    the step itself took is taken off. `speed` 2 halves every time. With
    `identity` the tokens are those of another vocabulary: the same ids, its
    stop token instead of the reference's, none of its special ones.
    """

    def __init__(
        self,
        profile: CloudProfile,
        *,
        identity: ModelIdentity | None = None,
        speed: float = 1.0,
        max_context_tokens: int = 4096,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not speed > 0:
            raise InvalidRequest(f"speed is {speed}, expected a number above 0")
        vocab_size = identity.vocab_size if identity is not None else DEFAULT_VOCAB_SIZE
        self._reference = ReferenceEngine(vocab_size, max_context_tokens)
        self._own = identity
        known = identity or reference_identity()
        self.identity: ModelIdentity = dataclasses.replace(known, model=f"{known.model} ({MARK})")
        self.layout = self._reference.layout
        self.max_context_tokens = max_context_tokens
        self._profile = profile
        self._speed = speed
        self._sleep = sleep
        self._clock = clock

    def forward(
        self, cells: Cells, chunks: Sequence[Chunk], *, watch: LayerWatch | None = None
    ) -> npt.NDArray[np.float32]:
        """See the contract; logits are [len(chunks), vocab].

        The only layer stands for the middle one: it is done after half the time.
        """
        started_s = self._clock()
        logits = self._reference.forward(cells, chunks)
        if self._own is not None:
            _translate(logits, self._own)
        left_s = started_s + self.step_s(chunks) - self._clock()
        if watch is not None:
            left_s /= 2
            self._pass(left_s)
            show_only_layer(watch, chunks[-1])
        self._pass(left_s)
        return logits

    def _pass(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)

    def step_s(self, chunks: Sequence[Chunk]) -> float:
        """Seconds the accelerator takes for this batch.

        A chunk of one token behind others is a decode, anything else a prefill.
        """
        contexts = [each.total for each in chunks if len(each.token_ids) == 1 < each.total]
        spans = [
            (each.total - len(each.token_ids), each.total)
            for each in chunks
            if len(each.token_ids) > 1 or each.total == 1
        ]
        seconds = self._profile.decode_s(contexts) if contexts else 0.0
        seconds += self._profile.prefill.seconds(spans) if spans else 0.0
        return seconds / self._speed


def load_emulated(
    model: str, profile: CloudProfile, *, speed: float, max_context_tokens: int
) -> EmulatedEngine:
    """An emulated engine with the vocabulary of the directory `model`, if one is named.

    Raises what ModelIdentity.from_directory raises.
    """
    identity = None
    if model:
        identity = ModelIdentity.from_directory(
            Path(model), numerics="emulated", weights_digest=b""
        )
    return EmulatedEngine(
        profile,
        identity=identity,
        speed=speed,
        max_context_tokens=max_context_tokens or 4096,
    )


def _translate(logits: npt.NDArray[np.float32], identity: ModelIdentity) -> None:
    stops = logits[:, STOP_ID].copy()
    logits[:, [STOP_ID, *identity.special_token_ids]] = -np.inf
    if identity.stop_token_ids:
        logits[:, identity.stop_token_ids[0]] = stops
