"""A request's fields, taken one by one; what nobody took is refused by name."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from segue_protocol.errors import InvalidRequest, Unsupported

Default = TypeVar("Default", float, None)


class Fields:
    """The fields of one JSON object. None counts as absent, as with OpenAI.

    `within` is the object's own name, for messages. Every reader raises
    InvalidRequest, with the field in ``param``, on a value of another kind.
    """

    def __init__(self, values: object, within: str = "") -> None:
        if not isinstance(values, Mapping):
            raise wrong(within or "the request", values, "an object")
        self._left = dict(values)
        self._prefix = f"{within}." if within else ""

    def take(self, name: str) -> Any:
        """The value of a field, as it is."""
        return self._left.pop(name, None)

    def path(self, name: str) -> str:
        """The field's full name."""
        return self._prefix + name

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is None or isinstance(value, bool):
            return value or False
        raise wrong(self.path(name), value, "true or false")

    def number(self, name: str, default: Default) -> float | Default:
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong(self.path(name), value, "a number")
        return value

    def integer(self, name: str, low: int, high: int = 2**64 - 1) -> int | None:
        value = self.take(name)
        if value is None:
            return None
        return integer(self.path(name), value, low, high)

    def text(self, name: str) -> str | None:
        value = self.take(name)
        return None if value is None else text(self.path(name), value)

    def ids(self, name: str) -> tuple[int, ...]:
        """A list of token ids."""
        value = self.take(name)
        return () if value is None else token_ids(self.path(name), value)

    def only(self, name: str, allowed: Sequence[object], why: str) -> None:
        """Accept a field where it is absent, empty, or one of `allowed`; else Unsupported."""
        value = self.take(name)
        accepted = (None, [], {}, *allowed)
        if not any(type(value) is type(each) and value == each for each in accepted):
            raise unsupported(self.path(name), value, why)

    def ignore(self, names: Sequence[str]) -> None:
        """Accept fields that cannot change the answer."""
        for name in names:
            self.take(name)

    def finish(self) -> None:
        """Refuse what nobody took."""
        for name in self._left:
            raise InvalidRequest(
                f"unknown parameter {self.path(name)!r}; remove it, or look for its name in "
                "Segue's documentation",
                reason="UNKNOWN_PARAMETER",
                param=self.path(name),
            )


def integer(param: str, value: object, low: int, high: int) -> int:
    """An integer from `low` to `high`; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise wrong(param, value, f"an integer from {low} to {high}")
    return value


def text(param: str, value: object) -> str:
    """A string that can be written in UTF-8; half a surrogate pair cannot."""
    if not isinstance(value, str):
        raise wrong(param, value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise wrong(param, value, "text without lone surrogates") from error
    return value


def items(param: str, value: object) -> Sequence[Any]:
    """A JSON array, or what an app passes for one."""
    if not isinstance(value, (list, tuple)):
        raise wrong(param, value, "a list")
    return value


def token_ids(param: str, value: object) -> tuple[int, ...]:
    """A list of ids; the model's vocabulary is checked where it is known."""
    return tuple(integer(param, each, 0, 2**32 - 1) for each in items(param, value))


def wrong(param: str, value: object, expected: str) -> InvalidRequest:
    """A value that is not what its field holds."""
    return InvalidRequest(
        f"{param} is {reprlib.repr(value)}, expected {expected}; correct the request", param=param
    )


def unsupported(param: str, value: object, why: str) -> Unsupported:
    """A wish OpenAI's interface knows and Segue does not fulfil."""
    return Unsupported(
        f"{param} is {reprlib.repr(value)}: {why}", reason="UNSUPPORTED_PARAMETER", param=param
    )
