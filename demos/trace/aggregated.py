"""A cluster of instances that prefill and decode in one batch each (chunked prefill)."""

from __future__ import annotations

from demos.trace.batch import Prompt
from demos.trace.call import Call, Phase
from demos.trace.case import Case
from demos.trace.events import Events
from demos.trace.gateway import SLOTS, Gateway
from segue_protocol.wire import private


class AggregatedGateway(Gateway):
    """Reserve at an instance, prefill there in chunks beside what decodes, go on decoding."""

    def __init__(self, events: Events, case: Case) -> None:
        super().__init__(events, case)
        for _ in range(case.cloud.instances):
            self._add_decoder(private.ROLE_UNSPECIFIED)

    def _offer(self, call: Call) -> str | None:
        free = [
            member
            for member, decoder in self._decoders.items()
            if decoder.batch.prompts < self._case.cloud.prefill_slots
        ]
        if not free:
            return SLOTS
        short = self._reserve(call, free)
        if short is None:
            assert call.decoder is not None
            call.phase = Phase.PREFILLING
            call.slots.add(1, self._events.now_s)
            tokens = call.prompt_tokens + call.made
            began_s = self._events.now_s
            call.prompt = Prompt(tokens, lambda: self._prefilled(call, began_s))
            self._decoders[call.decoder].batch.prefill(call.prompt)
        return short

    def _prefilled(self, call: Call, began_s: float) -> None:
        if call.phase is Phase.OVER:
            return
        call.prefill_s = self._events.now_s - began_s
        self._first_token(call)
        if call.complete:
            self.end(call)
            return
        call.slots.add(-1, self._events.now_s)
        call.phase, call.prompt = Phase.TRANSFERRING, None
        assert call.decoder is not None
        self._decoders[call.decoder].admit(call)
        self._advance()

    def _stop_prefill(self, call: Call) -> None:
        if call.phase is Phase.PREFILLING:
            assert call.decoder is not None
            assert isinstance(call.prompt, Prompt)
            self._decoders[call.decoder].batch.abandon(call.prompt)
            call.slots.add(-1, self._events.now_s)
