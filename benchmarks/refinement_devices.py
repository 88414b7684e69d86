"""A device engine's answers to a prompt of which only some positions are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segue_device.convert import convert_to_gguf, convert_to_onnx
from segue_device.engines import Cancel, DeviceEngine
from segue_device.engines.loading import load_engine

CONVERTERS = {"onnx": convert_to_onnx, "llama_cpp": convert_to_gguf}


def open_engine(name: str, model: Path, scratch: Path) -> DeviceEngine:
    """One of CONVERTERS over `model`, converted into `scratch`."""
    CONVERTERS[name](model, scratch)
    return load_engine(scratch)


def answer(
    engine: DeviceEngine,
    ids: Sequence[int],
    positions: Sequence[int],
    tokens: int,
    forced: Sequence[int] | None = None,
) -> list[int]:
    """The likeliest token at each of `tokens` places behind the kept `positions` of `ids`.

    Cells keep their original positions. What follows each place is `forced`
    (teacher forcing), else what was likeliest.
    """
    engine.rewind(0)
    engine.append([ids[position] for position in positions], positions, cancel=Cancel())
    found: list[int] = []
    for place in range(tokens):
        found.append(int(engine.logits().argmax()))
        if place + 1 < tokens:
            follows = found[-1] if forced is None else forced[place]
            engine.append([follows], [len(ids) + place], cancel=Cancel())
    return found


@dataclass(slots=True)
class Tally:
    """Of one scorer at one ratio."""

    exact: list[bool] = field(default_factory=list)
    agreeing: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)


def judge(
    engine: DeviceEngine,
    ids: Sequence[int],
    kept: Sequence[tuple[int, int]],
    unrefined: Sequence[int],
    expected: Sequence[int],
    tally: Tally,
) -> None:
    """Count one refined answer against the unrefined one and the expected one."""
    positions = [position for start, end in kept for position in range(start, end)]
    found = answer(engine, ids, positions, len(unrefined), unrefined)
    same = [left == right for left, right in zip(found, unrefined, strict=True)]
    if list(unrefined) == list(expected):
        exact = all(same)
    else:  # a wrong answer leads elsewhere
        exact = answer(engine, ids, positions, len(expected)) == list(expected)
    tally.exact.append(exact)
    tally.agreeing.append(sum(same) / len(same))
    tally.kept.append(len(positions) / len(ids))
    tally.runs.append(len(kept))
