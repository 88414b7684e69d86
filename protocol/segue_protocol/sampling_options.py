"""What a request may ask of the sampler: values, bounds and wire form.

Kept apart from :mod:`segue_protocol.sampling`, which re-exports it, because
a gateway checks and forwards these without ever sampling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from segue_protocol.errors import InvalidRequest
from segue_protocol.wire import public

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_STOP_TOKEN_IDS = 64
MAX_BIASES = 4096
# Between 0 and this, scores divided by the temperature could overflow a double.
MIN_TEMPERATURE = 1e-4


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of one answer, the defaults are plain argmax.

    ``top_k`` 0, ``top_p`` 1, ``min_p`` 0, ``repetition_penalty`` 1 and the
    other penalties 0 are off. ``repetition_penalty`` covers the original
    prompt and the output, the other two the output. ``stop_token_ids`` end the
    answer beside those of the model; ``stop`` are strings, looked for in the
    text by :class:`segue_protocol.text.TextStream`. Without a ``seed`` the
    device draws one; where none was drawn it counts as 0.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()

    def validate(self, vocab_size: int | None = None) -> None:
        """Raise InvalidRequest on the first value outside its bounds.

        Ids are checked against `vocab_size` when it is known.
        """
        if self.temperature != 0:
            _require_within(
                "temperature", self.temperature, MIN_TEMPERATURE, 100, also=" or 0 (argmax)"
            )
        _require_within("top_k", self.top_k, 0, 2**32 - 1)
        _require_within("top_p", self.top_p, 0, 1)
        if self.top_p == 0:
            raise InvalidRequest(
                "top_p is 0 and would keep no token; expected 0 < top_p <= 1", param="top_p"
            )
        _require_within("min_p", self.min_p, 0, 1)
        _require_within("repetition_penalty", self.repetition_penalty, 0.01, 100)
        _require_within("presence_penalty", self.presence_penalty, -2, 2)
        _require_within("frequency_penalty", self.frequency_penalty, -2, 2)
        _require_within("seed", self.seed or 0, 0, 2**64 - 1)
        _require_within(
            "logit_bias", len(self.logit_bias), 0, MAX_BIASES, "number of logit_bias entries"
        )
        for token_id, bias in self.logit_bias.items():
            _require_within("logit_bias", bias, -100, 100, f"logit_bias of token {token_id}")
        stop_ids = len(self.stop_token_ids)
        _require_within(
            "stop_token_ids", stop_ids, 0, MAX_STOP_TOKEN_IDS, "number of stop token ids"
        )
        largest_id = 2**32 - 1 if vocab_size is None else vocab_size - 1
        for param, ids in (
            ("logit_bias", self.logit_bias),
            ("stop_token_ids", self.stop_token_ids),
        ):
            for token_id in ids:
                _require_within(param, token_id, 0, largest_id, f"token id in {param}")
        validate_stops(self.stop)

    def to_wire(self) -> public.Sampling:
        """The message with the same values, every optional field present."""
        return public.Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
            seed=self.seed or 0,
            stop_token_ids=self.stop_token_ids,
            stop=self.stop,
        )

    @classmethod
    def from_wire(cls, message: public.Sampling) -> Sampling:
        """The settings in `message`, not validated; absent optionals are off."""
        return cls(
            temperature=message.temperature,
            top_k=message.top_k,
            top_p=message.top_p if message.HasField("top_p") else 1.0,
            min_p=message.min_p,
            repetition_penalty=(
                message.repetition_penalty if message.HasField("repetition_penalty") else 1.0
            ),
            presence_penalty=message.presence_penalty,
            frequency_penalty=message.frequency_penalty,
            logit_bias=dict(message.logit_bias),
            seed=message.seed,
            stop_token_ids=tuple(message.stop_token_ids),
            stop=tuple(message.stop),
        )


def validate_stops(stops: tuple[str, ...]) -> None:
    """Raise InvalidRequest on too many stop strings, an empty or an overlong one."""
    _require_within("stop", len(stops), 0, MAX_STOPS, "number of stop strings")
    for stop in stops:
        _require_within("stop", len(stop), 1, MAX_STOP_CHARACTERS, "length of a stop string")


def _require_within(
    param: str, value: float, low: float, high: float, what: str | None = None, also: str = ""
) -> None:
    """`what` names the figure, if it is not `param` itself. NaN lies in no interval."""
    if not (low <= value <= high) or not math.isfinite(value):
        raise InvalidRequest(
            f"{what or param} is {value}, expected {low} to {high}{also}; correct the request",
            param=param,
        )
