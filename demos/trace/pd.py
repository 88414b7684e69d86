"""A cluster of prefill and decode instances: KV is pulled from one to the other."""

from __future__ import annotations

from demos.trace.call import Call, Phase
from demos.trace.case import Case
from demos.trace.events import Events
from demos.trace.gateway import SLOTS, Gateway, take
from demos.trace.prefill import Prefilling, PrefillInstance
from segue_cloud.cluster.forwarding import order
from segue_cloud.cluster.members import Member
from segue_protocol.wire import private


class PdGateway(Gateway):
    """Reserve at a decode instance, prefill, pull, decode."""

    def __init__(self, events: Events, case: Case, prefill_workers: int) -> None:
        super().__init__(events, case)
        cloud = case.cloud
        self._prefills: dict[Member, PrefillInstance] = {}
        for _ in range(prefill_workers):
            self._prefills[self._member(private.ROLE_PREFILL)] = PrefillInstance(
                events, self._profile, slots=cloud.prefill_slots, list_share=cloud.list_share
            )
        for _ in range(cloud.instances - prefill_workers):
            self._add_decoder(private.ROLE_DECODE)

    def check_idle(self) -> None:
        super().check_idle()
        for member, prefill in self._prefills.items():
            assert prefill.free_slots == self._case.cloud.prefill_slots
            assert not member.open_streams

    def _offer(self, call: Call) -> str | None:
        if call.decoder is None:  # a reservation is kept while the first in line waits
            short = self._reserve(call, list(self._decoders))
            if short is not None:
                return short
        members = list(self._prefills)
        for member in order(members, lambda member: 0):
            if self._prefills[member].free_slots:
                call.prefiller = take(member, members)
                self._prefill(call, self._prefills[member])
                return None
        return SLOTS

    def _prefill(self, call: Call, instance: PrefillInstance) -> None:
        call.phase = Phase.PREFILLING
        tokens = call.prompt_tokens + call.made
        self._hold(call, +1, tokens)
        call.prompt = Prefilling(
            tokens=tokens,
            listed=(lambda: self._listed(call)) if call.keep_ratio < 1 and not call.made else None,
            done=lambda: self._prefilled(call),
        )
        instance.accept(call.prompt)

    def _listed(self, call: Call) -> None:
        if call.phase is Phase.PREFILLING:
            assert isinstance(call.prompt, Prefilling)
            call.list_s = self._case.cloud.list_share * call.prompt.seconds
            call.peer.kept_list()

    def _prefilled(self, call: Call) -> None:
        prompt = call.prompt
        assert isinstance(prompt, Prefilling)
        if call.phase is Phase.OVER:
            self._release(call)
            self._advance()
            return
        call.prefill_s = prompt.seconds
        call.phase = Phase.TRANSFERRING
        self._first_token(call)
        if call.complete:
            self.end(call)
            return
        cloud = self._case.cloud
        transfer_s = prompt.tokens * cloud.kv_bytes_per_token / cloud.transfer_bytes_per_s
        self._events.at(self._events.now_s + transfer_s, lambda: self._pulled(call))

    def _pulled(self, call: Call) -> None:
        if call.phase is not Phase.TRANSFERRING:
            return
        self._release(call)
        assert call.decoder is not None
        self._decoders[call.decoder].admit(call)
        self._advance()

    def _stop_prefill(self, call: Call) -> None:
        prompt, prefiller = call.prompt, call.prefiller
        if prefiller is None or not isinstance(prompt, Prefilling):
            return
        if call.phase is Phase.TRANSFERRING:
            self._release(call)
        elif self._prefills[prefiller].abandon(prompt):
            self._slot_freed(call)

    def _release(self, call: Call) -> None:
        assert call.prefiller is not None
        self._prefills[call.prefiller].release()
        self._slot_freed(call)

    def _slot_freed(self, call: Call) -> None:
        prompt, prefiller = call.prompt, call.prefiller
        assert prefiller is not None
        assert isinstance(prompt, Prefilling)
        prefiller.open_streams -= 1
        call.prefiller = None
        self._hold(call, -1, -prompt.tokens)

    def _hold(self, call: Call, slots: int, cells: int) -> None:
        call.slots.add(slots, self._events.now_s)
        call.cells.add(cells, self._events.now_s)
