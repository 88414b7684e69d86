"""The decoding side of one instance: pages, places, one batch, parked calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demos.trace.batch import BatchInstance, Decoding
from demos.trace.call import Call, Phase
from demos.trace.case import CloudCase
from demos.trace.events import Events
from segue_cloud.kv.ledger import PageLedger
from segue_cloud.worker.cells import cells_needed

PLACES, MEMORY = "decode places", "KV memory"
# How long a refused extension waits before it is asked for again.
RETRY_S = 0.05


class Decoder:
    """Reserves, decodes up to the credit, parks; evicts who is parked for who is new."""

    def __init__(
        self,
        events: Events,
        batch: BatchInstance,
        case: CloudCase,
        *,
        completed: Callable[[Call], None],
        evicted: Callable[[Call], None],
        freed: Callable[[], None],
    ) -> None:
        """Told of a call whose answer ended, of one that lost its pages, and of room."""
        self.batch = batch
        self._events = events
        self._ledger = PageLedger(case.pages, case.page_tokens)
        self._max_batch = case.max_batch
        self._reserved = 0
        self._parked: dict[Call, None] = {}  # insertion order: oldest first
        self._completed = completed
        self._evicted = evicted
        self._freed = freed

    def reserve(self, call: Call) -> str | None:
        """Hold cells for prompt and credit, and a place; or say what is short."""
        if self.batch.running + self._reserved >= self._max_batch:
            return PLACES
        tokens = cells_needed(call.prompt_tokens, call.credit)
        table = self._ledger.reserve(tokens)
        while table is None and self._evict_oldest(call):
            table = self._ledger.reserve(tokens)
        if table is None:
            return MEMORY
        call.table, call.granted = table, call.credit
        self._reserved += 1
        call.cells.add(table.capacity_tokens, self._events.now_s)
        return None

    def admit(self, call: Call) -> None:
        """Decode with what was reserved, its cells filled."""
        self._reserved -= 1
        self._go_on(call)
        if call.credit > call.granted:
            self.credit_raised(call)

    def credit_raised(self, call: Call) -> None:
        """Let a call that decodes or is parked go on, as soon as there are cells for it."""
        if call.phase not in (Phase.DECODING, Phase.PARKED) or call.credit <= call.granted:
            return
        if not self._grow(call):
            self._events.at(self._events.now_s + RETRY_S, lambda: self.credit_raised(call))
            return
        before, call.granted = call.may_make, call.credit
        more = call.may_make - before
        if call.phase is Phase.PARKED:
            del self._parked[call]
            self._go_on(call)
        elif more > 0:
            assert call.decoding is not None
            self.batch.extend(call.decoding, more)

    def leave(self, call: Call) -> None:
        """Free all it has here; a step that is under way still writes to its pages."""
        if call.phase in (Phase.WAITING, Phase.PREFILLING, Phase.TRANSFERRING):
            self._reserved -= 1
        elif call.phase is Phase.DECODING:
            assert call.decoding is not None
            self.batch.leave(call.decoding)
            self._hold_place(call, -1)
        self._parked.pop(call, None)
        self._free(call)

    def check_idle(self) -> None:
        """Raise unless every page and place is free."""
        self._ledger.check_integrity()
        counts = (self._ledger.used, self._reserved, len(self._parked), self.batch.running)
        assert not any(counts), counts

    # ---- helpers

    def _go_on(self, call: Call) -> None:
        if call.may_make <= 0:
            call.phase = Phase.PARKED
            self._parked[call] = None
            return
        call.phase = Phase.DECODING
        self._hold_place(call, 1)
        call.decoding = Decoding(
            context_tokens=call.prompt_tokens + call.made,
            tokens=call.may_make,
            watched=call.watched,
            made=lambda made_s: self._made(call, made_s),
            stopped=lambda: self._stopped(call),
        )
        self.batch.join(call.decoding)

    def _made(self, call: Call, made_s: Sequence[float]) -> None:
        call.made += len(made_s)
        call.peer.tokens(made_s)

    def _stopped(self, call: Call) -> None:
        call.decoding = None
        self._hold_place(call, -1)
        call.phase = Phase.PARKED
        if call.complete:
            self._free(call)
            self._completed(call)
        else:
            self._parked[call] = None
            self._freed()  # its place

    def _hold_place(self, call: Call, places: int) -> None:
        """Join the batch (1) or leave it (-1), and count the time between."""
        now_s = self._events.now_s
        call.slots.add(places, now_s)
        call.place_s -= places * now_s  # entered at -t, left at +t: what remains is the time

    def _grow(self, call: Call) -> bool:
        assert call.table is not None
        tokens, before = cells_needed(call.prompt_tokens, call.credit), call.table.capacity_tokens
        grown = call.table.extend(tokens)
        while not grown and self._evict_oldest(call):
            grown = call.table.extend(tokens)
        call.cells.add(call.table.capacity_tokens - before, self._events.now_s)
        return grown

    def _evict_oldest(self, spare: Call) -> bool:
        for call in self._parked:
            if call is not spare:
                del self._parked[call]
                call.phase = Phase.EVICTED
                self._free(call)
                self._evicted(call)
                return True
        return False

    def _free(self, call: Call) -> None:
        if call.table is not None:
            call.cells.add(-call.table.capacity_tokens, self._events.now_s)
            self._ledger.free(call.table)
            call.table = None
            self._freed()
