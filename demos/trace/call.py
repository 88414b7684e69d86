"""One request as the cloud sees it, and what it costs there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from demos.trace.batch import Decoding, Prompt
from demos.trace.prefill import Prefilling
from segue_cloud.cluster.fair_line import Place
from segue_cloud.cluster.members import Member
from segue_cloud.kv.ledger import PageTable


class Phase(Enum):
    """Where a call is."""

    WAITING = auto()
    PREFILLING = auto()
    TRANSFERRING = auto()
    DECODING = auto()
    PARKED = auto()
    EVICTED = auto()
    OVER = auto()


class Peer(Protocol):
    """Who called. All of it happens at the gateway; the way to the device is the peer's affair."""

    def tokens(self, made_s: Sequence[float]) -> None:
        """The next tokens of the answer, and when each was made."""
        ...

    def kept_list(self) -> None:
        """The cloud knows which part of the prompt is worth keeping."""
        ...

    def refused(self) -> None:
        """No first token in time; nothing more will come."""
        ...


class Integral:
    """A level that changes now and then, summed over time."""

    def __init__(self) -> None:
        self.total = 0.0
        self.level = 0.0
        self._since_s = 0.0

    def add(self, amount: float, now_s: float) -> None:
        """The level is higher by `amount` from now on."""
        self.total += self.level * (now_s - self._since_s)
        self.level, self._since_s = self.level + amount, now_s


@dataclass(eq=False, slots=True)
class Call:
    """One request, from its arrival at the gateway to its end."""

    peer: Peer
    prompt_tokens: int
    # Where the model ends the answer; the cloud notices only there.
    output_tokens: int
    credit: int = 1
    # The device follows every token; else they are told together when the call stops.
    watched: bool = True
    # Below 1 the prompt is refined.
    keep_ratio: float = 1.0
    phase: Phase = Phase.WAITING
    made: int = 0
    # Output indices below this have cells: the credit, once it was granted.
    granted: int = 0
    arrived_s: float = 0.0
    first_token_s: float | None = None
    # Of the prefill, until the kept list was there; 0 without one.
    list_s: float = 0.0
    # What its first token waited for.
    prefill_s: float = 0.0
    waited_s: float = 0.0
    waited_for: str = ""
    # In a place of a decode batch.
    place_s: float = 0.0
    # Slots and places in a batch [s], and cells [tokens x s], that it took.
    slots: Integral = field(default_factory=Integral)
    cells: Integral = field(default_factory=Integral)
    # Where it is.
    place: Place | None = None
    decoder: Member | None = None
    prefiller: Member | None = None
    table: PageTable | None = None
    prompt: Prefilling | Prompt | None = None
    decoding: Decoding | None = None

    @property
    def complete(self) -> bool:
        return self.made >= self.output_tokens

    @property
    def may_make(self) -> int:
        """Tokens until the granted credit or the answer ends."""
        return min(self.granted, self.output_tokens) - self.made
