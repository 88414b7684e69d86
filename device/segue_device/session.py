"""A conversation: its messages, and one turn after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segue_device.answer_stream import AnswerStream
from segue_device.events import Result
from segue_protocol.errors import InvalidRequest

# A turn whose own prefill is that quick needs no cloud: nobody sees the difference.
DEFAULT_TTFT_TARGET_S = 0.3


class Session:
    """Keeps the messages and lets every turn begin from the device's KV of the one before.

    A turn prefills only what is new; where the template renders an old turn
    differently, from there on. The cloud is asked only if the device's own
    prefill would take longer than `ttft_target_s`. One turn at a time; a turn
    that failed is not part of the conversation and may be sent again, one that
    was cancelled is, with the text that was shown.
    """

    def __init__(
        self,
        open_answer: Callable[..., AnswerStream],
        *,
        system: str | None = None,
        messages: Sequence[Mapping[str, str]] = (),
        ttft_target_s: float | None = DEFAULT_TTFT_TARGET_S,
        **options: Any,
    ) -> None:
        """`open_answer` is a client's `stream`; `options` are for it, in every turn."""
        given = [dict(message) for message in messages]
        first = [] if system is None else [{"role": "system", "content": system}]
        self._open_answer = open_answer
        self._messages = first + given
        self._options = {"ttft_target_s": ttft_target_s, **options}

    @property
    def messages(self) -> Sequence[Mapping[str, str]]:
        """The conversation so far, oldest first."""
        return [dict(message) for message in self._messages]

    def stream(self, text: str, **options: Any) -> AnswerStream:
        """The next turn: the user says `text`. `options` win over the session's."""
        if not text:
            raise InvalidRequest("the user's turn is empty; expected text")
        before = len(self._messages)
        turn = [*self._messages, {"role": "user", "content": text}]

        def keep(result: Result) -> None:
            if len(self._messages) != before:
                raise InvalidRequest(
                    "two turns of one session were answered at once; take one at a time"
                )
            self._messages = [*turn, {"role": "assistant", "content": result.text}]

        return self._open_answer(messages=turn, on_result=keep, **{**self._options, **options})
