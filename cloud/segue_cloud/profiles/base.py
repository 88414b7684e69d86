"""How long an accelerator takes: what tuner, ratio, simulator and emulated engine read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from segue_protocol.errors import InvalidRequest

FORMAT = 1

Cost = TypeVar("Cost", "PrefillCost", "DecodeCost", "Fit")


@dataclass(frozen=True, slots=True)
class PrefillCost:
    """One prefill pass: base + per_token x sum(l) + per_token2 x sum(l^2)."""

    base_s: float
    per_token_s: float
    per_token2_s: float

    def seconds(self, spans: Sequence[tuple[int, int]]) -> float:
        """A pass over the tokens from `start` to `end` of every prompt of a batch.

        A later chunk of a prompt attends to all before it, so the squares of all
        its chunks add up to that of the prompt; every pass pays the base.
        """
        tokens = sum(end - start for start, end in spans)
        squares = sum(end * end - start * start for start, end in spans)
        return self.base_s + self.per_token_s * tokens + self.per_token2_s * squares


@dataclass(frozen=True, slots=True)
class DecodeCost:
    """One decode step: base + per_context_token x sum(context) + per_request x batch."""

    base_s: float
    per_context_token_s: float
    per_request_s: float
    from_batch: int = 1  # the smallest batch this holds for

    def seconds(self, contexts: Sequence[int]) -> float:
        return (self.base_s + self.per_context_token_s * sum(contexts)) + self.per_request_s * len(
            contexts
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """How well a cost describes its samples: (cost - measured) / measured."""

    samples: int
    relative_rms: float
    relative_max: float


@dataclass(frozen=True, slots=True)
class CloudProfile:
    """Speed of one model on one machine. Call :meth:`validate` on one from elsewhere.

    ``decode`` has one cost, or several for ranges of the batch, ascending.
    ``source`` tells where the numbers come from. The fits are absent from a
    published profile.
    """

    name: str
    source: str
    prefill: PrefillCost
    decode: tuple[DecodeCost, ...]
    model: str = ""
    weights_digest: str = ""  # in hex; whose speed it is
    dtype: str = ""
    threads: int = 0
    machine: Mapping[str, str] = field(default_factory=dict)
    prefill_fit: Fit | None = None
    decode_fit: Fit | None = None

    def prefill_s(self, lengths: Sequence[int]) -> float:
        """One pass over whole prompts of these lengths in tokens."""
        return self.prefill.seconds([(0, length) for length in lengths])

    def decode_cost(self, batch: int) -> DecodeCost:
        """What a step of so many requests costs."""
        cost = self.decode[0]
        for later in self.decode[1:]:
            if batch >= later.from_batch:
                cost = later
        return cost

    def decode_s(self, contexts: Sequence[int]) -> float:
        """One token of each of the requests whose contexts are so many tokens long."""
        return self.decode_cost(len(contexts)).seconds(contexts)

    def validate(self) -> None:
        """Raise InvalidRequest naming what makes no sense."""
        costs: list[tuple[str, PrefillCost | DecodeCost]] = [("prefill", self.prefill)]
        costs += [("decode", each) for each in self.decode]
        for what, cost in costs:
            for name, value in asdict(cost).items():
                if not math.isfinite(value) or value < 0:
                    raise self._wrong(f"{what}.{name} is {value}, expected a number from 0 on")
        if not self.decode:
            raise self._wrong("it has no decode cost, expected at least one")
        batches = [cost.from_batch for cost in self.decode]
        if batches[0] != 1 or batches != sorted(set(batches)):
            raise self._wrong(
                f"decode costs hold from batches {batches}, expected ascending numbers from 1 on"
            )
        if self.prefill_s([1]) <= 0 or self.decode_s([1]) <= 0:
            raise self._wrong("a step takes no time at all, expected more than 0 s")

    def save(self, path: Path) -> None:
        """Write as JSON. Raises InvalidRequest where nothing can be written."""
        try:
            path.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"cannot write the profile {path}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """What :meth:`load` reads."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def load(cls, path: Path) -> CloudProfile:
        """Read what :meth:`save` wrote. Raises InvalidRequest naming what is wrong with it."""
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidRequest(
                f"cannot read the profile {path}: {error}; make one with `segue-cloud profile`"
            ) from error
        profile = _from_json(table, str(path))
        profile.validate()
        return profile

    def _wrong(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"the profile {self.name!r} cannot be used: {what}")


def _from_json(table: Any, where: str) -> CloudProfile:
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise InvalidRequest(
            f"{where} is no profile of format {FORMAT}; make one with `segue-cloud profile`"
        )
    values = {name: value for name, value in table.items() if name != "format"}
    _require_fields(CloudProfile, values, where)
    values["prefill"] = _numbers(PrefillCost, values["prefill"], f"prefill in {where}")
    if not isinstance(values["decode"], list):
        raise InvalidRequest(f"decode in {where} is {values['decode']!r}, expected a list")
    values["decode"] = tuple(
        _numbers(DecodeCost, each, f"decode in {where}") for each in values["decode"]
    )
    for name in ("prefill_fit", "decode_fit"):
        if values.get(name) is not None:
            values[name] = _numbers(Fit, values[name], f"{name} in {where}")
    return CloudProfile(**values)


def _numbers(kind: type[Cost], table: Any, where: str) -> Cost:
    if not isinstance(table, dict):
        raise InvalidRequest(f"{where} is {table!r}, expected a table of numbers")
    _require_fields(kind, table, where)
    for name, value in table.items():
        if type(value) not in (int, float):
            raise InvalidRequest(f"{name} of {where} is {value!r}, expected a number")
    return kind(**table)


def _require_fields(kind: type[Any], table: Mapping[str, Any], where: str) -> None:
    known = [each.name for each in fields(kind)]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise InvalidRequest(f"unknown field {unknown[0]!r} in {where}; known: {', '.join(known)}")
    needed = ("name", "source", "prefill", "decode") if kind is CloudProfile else known
    for name in needed:
        if name not in table:
            raise InvalidRequest(f"{where} lacks {name!r}; known: {', '.join(known)}")
