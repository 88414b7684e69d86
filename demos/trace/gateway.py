"""The gateway of the replay: one line, offers to members, deadlines, takeovers.

Waiting happens here and nowhere else, in the cluster's own line; whom to ask first
is the cluster's own :func:`~segue_cloud.cluster.forwarding.order`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from demos.trace.batch import BatchInstance
from demos.trace.call import Call, Phase
from demos.trace.case import Case
from demos.trace.decoder import PLACES, Decoder
from demos.trace.events import Events
from segue_cloud.cluster.fair_line import FairLine, Place
from segue_cloud.cluster.forwarding import order
from segue_cloud.cluster.local_link import LocalLink
from segue_cloud.cluster.members import Member
from segue_cloud.engine.reference import ReferenceEngine
from segue_cloud.tuner.advice import CloudEstimate
from segue_protocol.wire import private

SLOTS = "prefill slots"


@dataclass
class Load:
    """What the calls took so far, for the ratio."""

    calls: int = 0
    prefill_s: float = 0.0
    # In a place of a decode batch.
    place_s: float = 0.0
    reserved_tokens: int = 0


class Gateway(ABC):
    """Calls wait in line for room, are prefilled, decode, and end."""

    def __init__(self, events: Events, case: Case) -> None:
        self.cloud_speed = CloudEstimate()
        self.load = Load()
        self._events = events
        self._case = case
        self._profile = case.cloud_profile
        self._line = FairLine()
        self._waiting: dict[Place, Call] = {}
        self._calls: set[Call] = set()
        self._members = 0
        self._blocked_by = ""
        self._advancing = False
        self._engine = ReferenceEngine()
        self._decoders: dict[Member, Decoder] = {}

    # ---- what devices ask for

    def submit(self, call: Call) -> None:
        """A request has arrived."""
        call.arrived_s = self._events.now_s
        self._calls.add(call)
        deadline_s = call.arrived_s + self._case.cloud.first_token_s
        self._events.at(deadline_s, lambda: self._refuse_late(call))
        self._wait(call, urgent=False)

    def raise_credit(self, call: Call, through: int) -> None:
        """Credit is absolute and monotone."""
        if call.phase is Phase.OVER or through <= call.credit:
            return
        call.credit = through
        if call.phase is Phase.EVICTED:
            self._wait(call, urgent=True)  # prefilled again, with what was made
        elif call.decoder is not None:
            self._decoders[call.decoder].credit_raised(call)

    def end(self, call: Call) -> None:
        """The device has taken over, or has no more use for the cloud. Idempotent."""
        if call.phase is Phase.OVER:
            return
        if call.place is not None:
            self._leave_line(call)
        self._let_go(call)
        self._over(call)

    def check_idle(self) -> None:
        """Raise unless nothing is held and nobody waits."""
        assert not len(self._line), len(self._line)
        assert not self._calls, len(self._calls)
        for member, decoder in self._decoders.items():
            decoder.check_idle()
            assert not member.open_streams

    # ---- the line

    def _wait(self, call: Call, *, urgent: bool) -> None:
        call.phase = Phase.WAITING
        place = self._line.join("", call.prompt_tokens + call.made, urgent=urgent)
        call.place = place
        self._waiting[place] = call
        self._advance()

    def _advance(self) -> None:
        """Offer the first in line, and whoever follows, until one finds no room."""
        if self._advancing:
            return  # room made by an eviction is for who is being offered
        self._advancing = True
        while self._line.first is not None:
            call = self._waiting[self._line.first]
            short = self._offer(call)
            if short is not None:
                self._blocked_by = short
                break
            self._count_wait(call)
            self._leave_line(call)
        self._advancing = False

    def _count_wait(self, call: Call) -> None:
        waited_s = self._events.now_s - call.arrived_s
        if call.first_token_s is None and waited_s > 0:
            call.waited_s, call.waited_for = waited_s, self._blocked_by

    def _leave_line(self, call: Call) -> None:
        place, call.place = call.place, None
        assert place is not None
        del self._waiting[place]
        self._line.leave(place)

    def _refuse_late(self, call: Call) -> None:
        if call.phase is not Phase.OVER and call.first_token_s is None:
            if call.place is not None:
                self._count_wait(call)
            self.end(call)
            call.peer.refused()

    # ---- the life of a call

    @abstractmethod
    def _offer(self, call: Call) -> str | None:
        """Find room; what is short if there is none. The first in line may keep a part of it."""

    @abstractmethod
    def _stop_prefill(self, call: Call) -> None:
        """Free what a call that is cut short holds for its prompt, if anything."""

    def _let_go(self, call: Call) -> None:
        self._stop_prefill(call)
        if call.decoder is not None:
            self._decoders[call.decoder].leave(call)
            self._end_stream(call)

    def _end_stream(self, call: Call) -> None:
        assert call.decoder is not None
        call.decoder.open_streams -= 1
        call.decoder = None

    def _first_token(self, call: Call) -> None:
        """The prompt (and what was made) is prefilled: that makes one token."""
        now_s = self._events.now_s
        if call.first_token_s is None:
            call.first_token_s = now_s
        call.made += 1
        call.peer.tokens([now_s])

    def _completed(self, call: Call) -> None:
        """The answer's last token was made; its pages are free."""
        self._let_go(call)
        self._over(call)

    def _over(self, call: Call) -> None:
        call.phase = Phase.OVER
        self._calls.discard(call)
        self.load.calls += 1
        self.load.prefill_s += call.prefill_s
        self.load.place_s += call.place_s
        self.load.reserved_tokens += call.prompt_tokens + call.granted
        if call.first_token_s is not None:
            waiting_s = call.first_token_s - call.arrived_s - call.prefill_s
            self.cloud_speed.observe(call.prompt_tokens, waiting_s, call.prefill_s)
            if call.list_s:
                self.cloud_speed.observe_list(call.list_s, call.prefill_s)
            self.cloud_speed.observe_decode(call.made - 1, call.place_s)
        self._advance()

    def _member(self, role: private.Role) -> Member:
        self._members += 1
        return Member(
            role=role,
            pid=self._members,
            incarnation=self._members.to_bytes(16, "big"),
            identity=self._engine.identity,
            layout=self._engine.layout,
            max_context_tokens=self._engine.max_context_tokens,
            link=LocalLink(),
        )

    def _add_decoder(self, role: private.Role) -> None:
        aggregated = role != private.ROLE_DECODE
        batch = BatchInstance(
            self._events,
            self._profile,
            iteration_tokens=self._case.cloud.iteration_tokens if aggregated else 0,
        )
        self._decoders[self._member(role)] = Decoder(
            self._events,
            batch,
            self._case.cloud,
            completed=self._completed,
            evicted=self._end_stream,
            freed=self._advance,
        )

    def _reserve(self, call: Call, members: Sequence[Member]) -> str | None:
        """Hold a place for the call at one of `members`; what is short if none has one."""
        short: str | None = PLACES
        for member in order(members, lambda member: 0):
            short = self._decoders[member].reserve(call)
            if short is None:
                call.decoder = take(member, members)
                break
        return short


def take(member: Member, members: Sequence[Member]) -> Member:
    """Note that `member` has accepted an offer."""
    member.open_streams += 1
    member.accepted_turn = 1 + max(other.accepted_turn for other in members)
    return member
