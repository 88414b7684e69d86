"""Which scenario a request belongs to (P/D-Serve 3.1). Pure: texts are token ids here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from segue_cloud.config import GroupConfig
from segue_protocol.errors import InvalidRequest
from segue_protocol.tuning import Targets

Encode = Callable[[str], Sequence[int]]

DEFAULT_GROUP = "default"
# Of a label that an error repeats.
SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Group:
    """One scenario. `prompt_prefix` and `shared_prefixes` are token ids.

    `quality` has (keep ratio, quality) as measured for its prompts.
    """

    name: str = DEFAULT_GROUP
    labels: tuple[str, ...] = ()
    prompt_prefix: tuple[int, ...] = ()
    shared_prefixes: tuple[tuple[int, ...], ...] = ()
    targets: Targets = field(default_factory=Targets)
    quality: tuple[tuple[float, float], ...] = ()

    @property
    def takes_any(self) -> bool:
        """Whether it names neither label nor prefix."""
        return not self.labels and not self.prompt_prefix

    def shared_tokens(self, prompt_ids: Sequence[int]) -> int:
        """How many leading tokens of a prompt are those of a text that all tenants share."""
        return max((_common(prefix, prompt_ids) for prefix in self.shared_prefixes), default=0)


class Groups:
    """All scenarios of one cloud, in the order of the configuration.

    Raises InvalidRequest naming what would leave a request or a worker without
    a clear place.
    """

    def __init__(self, groups: Sequence[Group] = (Group(),)) -> None:
        _require_distinct("groups", "name", [group.name for group in groups])
        _require_distinct("groups", "label", [label for group in groups for label in group.labels])
        general = [group.name for group in groups if group.takes_any]
        if len(general) > 1:
            raise InvalidRequest(
                f"groups {general[0]!r} and {general[1]!r} name neither labels nor a "
                "prompt_prefix, expected at most one such group; give the second one a label"
            )
        self._groups = tuple(groups)

    @classmethod
    def from_config(cls, configs: Sequence[GroupConfig], encode: Encode) -> Groups:
        """Tokenize the texts of a configuration."""
        return cls(
            [
                Group(
                    name=config.name,
                    labels=config.labels,
                    prompt_prefix=tuple(encode(config.prompt_prefix)),
                    shared_prefixes=tuple(tuple(encode(text)) for text in config.shared_prefixes),
                    targets=_targets(config),
                    quality=tuple((each.ratio, each.quality) for each in config.keep),
                )
                for config in configs
            ]
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(group.name for group in self._groups)

    def of(self, label: str, prompt_ids: Sequence[int]) -> Group:
        """The group of a request: by label, else by prefix, else the general one.

        Raises InvalidRequest for a label that no group names, and for a
        request that no group takes.
        """
        if label:
            for group in self._groups:
                if label in group.labels:
                    return group
            raise InvalidRequest(
                f"unknown label {label[:SHOWN_CHARACTERS]!r}; {self._known()}",
                reason="UNKNOWN_LABEL",
                param="label",
            )
        for group in self._groups:
            prefix = group.prompt_prefix
            if prefix and tuple(prompt_ids[: len(prefix)]) == prefix:
                return group
        for group in self._groups:
            if group.takes_any:
                return group
        raise InvalidRequest(
            f"no group takes a request without a label; {self._known()}",
            reason="NO_GROUP",
            param="label",
        )

    def _known(self) -> str:
        labels = sorted(label for group in self._groups for label in group.labels)
        return f"known labels are {', '.join(labels)}" if labels else "this cloud knows no labels"


def _targets(config: GroupConfig) -> Targets:
    """Its targets, checked together with its table of qualities."""
    for name, value in (("ttft_s", config.ttft_s), ("tpot_s", config.tpot_s)):
        if not math.isfinite(value) or value < 0:
            raise _wrong(config, f"{name} is {value}", "seconds from 0 on")
    if not 0 <= config.quality_floor <= 1:
        raise _wrong(config, f"quality_floor is {config.quality_floor}", "0 to 1")
    for each in config.keep:
        if not (0 < each.ratio <= 1 and 0 <= each.quality <= 1):
            raise _wrong(
                config,
                f"keep has the ratio {each.ratio} with the quality {each.quality}",
                "a ratio above 0 and both at most 1",
            )
    return Targets(config.ttft_s or None, config.tpot_s or None, config.quality_floor)


def _wrong(config: GroupConfig, what: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"{what} in group {config.name!r}, expected {expected}")


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _require_distinct(where: str, what: str, words: Sequence[str]) -> None:
    if not all(words):
        raise InvalidRequest(f"a {what} in {where} is empty; expected a word")
    for place, word in enumerate(words):
        if word in words[:place]:
            raise InvalidRequest(f"{what} {word!r} stands twice in {where}; expected it once")
