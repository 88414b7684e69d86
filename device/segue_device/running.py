"""The answers of one client that are under way, and what happens to all of them."""

from __future__ import annotations

import anyio

from segue_device.answer_stream import AnswerStream
from segue_device.conditions import DeviceConditions
from segue_protocol.errors import InvalidRequest


class RunningAnswers:
    """Who runs, who has the engine, whether the app sleeps, whether the device is spared."""

    def __init__(self) -> None:
        self.conditions = DeviceConditions()
        self._answers: set[AnswerStream] = set()
        self._suspended_at_s: float | None = None

    @property
    def engine_in_use(self) -> bool:
        return any(answer.uses_engine for answer in self._answers)

    def answer_opened(self, answer: AnswerStream) -> None:
        """Called by an answer. One at a time may use the engine."""
        if self._suspended_at_s is not None:
            raise InvalidRequest("the client is suspended; call resume() first", reason="SUSPENDED")
        if answer.uses_engine:
            self.require_free_engine()
        self._answers.add(answer)

    def require_free_engine(self) -> None:
        """Raise InvalidRequest while an answer has it."""
        if self.engine_in_use:
            raise InvalidRequest(
                "another answer of this client is using the device engine; end it first, "
                "or open a second client with a second engine",
                reason="ENGINE_BUSY",
            )

    def answer_closed(self, answer: AnswerStream) -> None:
        """Called by an answer."""
        self._answers.discard(answer)

    def set_conditions(self, conditions: DeviceConditions) -> None:
        """Holds for running and for later answers."""
        self.conditions = conditions
        for answer in self._answers:
            answer.rest(conditions.reason)

    def suspend(self) -> None:
        """Stop all work, close all streams. Idempotent."""
        if self._suspended_at_s is None:
            self._suspended_at_s = anyio.current_time()
            for answer in self._answers:
                answer.suspend()

    def resume(self) -> None:
        """Go on where everything stopped. Idempotent."""
        if self._suspended_at_s is not None:
            slept_s = anyio.current_time() - self._suspended_at_s
            self._suspended_at_s = None
            for answer in self._answers:
                answer.resume(slept_s)
