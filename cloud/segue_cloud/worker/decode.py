"""The decode worker: reservations, pulls, and one continuous batch.

It waits for nothing: a reservation or an extension that cannot be had now is
refused at once, after parked requests have been evicted, oldest first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from typing import TypeVar

import anyio

from segue_cloud.kv.digest import DigestKind
from segue_cloud.kv.pages import PageTable
from segue_cloud.kv.place import place_of, require_place
from segue_cloud.kv.transfer import Fetch, KvPuller
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.cells import cells_needed
from segue_cloud.worker.compute import Compute
from segue_cloud.worker.requests import next_message
from segue_cloud.worker.sequence import Sequence
from segue_protocol.errors import DeadlineExceeded, InvalidRequest, Overloaded
from segue_protocol.sampling import Sampling
from segue_protocol.wire import private

PAGES_RETRY_S = 0.02
# Between two looks at which layers of an early ticket are done.
LAYER_POLL_S = 0.002

T = TypeVar("T")


class DecodeWorker:
    """Serves `Decode` streams over one batch. Run `batch.run()` beside it."""

    def __init__(
        self,
        batch: Batch,
        puller: KvPuller | None,
        transfers: Compute,
        *,
        digest: DigestKind = "sampled",
        admit_lease_s: float = 60.0,
        max_reserved: int | None = None,
    ) -> None:
        """Without a `puller`, prefill shares the pool and writes into it itself.

        `max_reserved`: how many may hold a reservation while their prompt is
        prefilled, if there is another limit than the places in the batch.
        """
        self.batch = batch
        self.pool = batch.pool
        self.rejections = 0
        self.transfers = 0
        self.transfer_bytes = 0
        self._puller = puller
        self._transfers = transfers
        self._digest: DigestKind = digest
        self._admit_lease_s = admit_lease_s
        self._max_reserved = batch.max_batch if max_reserved is None else max_reserved
        self._reserved = 0

    async def decode(
        self, requests: AsyncIterator[private.DecodeRequest]
    ) -> AsyncGenerator[private.DecodeResponse, None]:
        """One request: `reserve`, `admit`, then `credit`s in; events out.

        Raises Overloaded when pages or batch places are short, DeadlineExceeded
        when `admit` does not come within the lease, TransferError when the pull
        fails. All pages are free when the stream is over, however it ended.
        """
        reserve = (await next_message(requests, "reserve")).reserve
        table = self._reserve(reserve.tokens)
        sequence: Sequence | None = None
        credits: asyncio.Task[None] | None = None
        early: asyncio.Task[Fetch] | None = None
        try:
            place = place_of(self.pool, table) if self._puller is None else None
            yield private.DecodeResponse(reserved=private.Reserved(place=place))
            message = await self._await_admit(requests, *(("prefetch",) if self._puller else ()))
            if message.HasField("prefetch"):
                early = asyncio.create_task(self._prefetch(message.prefetch.ticket, table))
                message = await self._await_admit(requests)
            admit = message.admit
            yield private.DecodeResponse(pulled=await self._pull(admit, table, early))
            sequence = self._sequence(admit, table)
            self._reserved -= 1
            self.batch.add(sequence)
            credits = asyncio.create_task(self._read_credits(requests, sequence))
            while True:
                event = await sequence.events.get()
                yield event
                if event.WhichOneof("message") in ("ended", "evicted"):
                    return
        finally:
            if credits is not None:
                credits.cancel()
            if early is not None:
                early.cancel()
                # It writes into the pages: they are freed when it has ended.
                await asyncio.gather(early, return_exceptions=True)
            if sequence is not None:
                self.batch.remove(sequence)
            else:
                self._reserved -= 1
                self.pool.free(table)

    def _reserve(self, tokens: int) -> PageTable:
        most = min(self.batch.max_batch - self.batch.running, self._max_reserved)
        places = most - self._reserved
        table = self._evicting(lambda: self.pool.reserve(tokens)) if places > 0 else None
        if table is None:
            self.rejections += 1
            short = "pages" if places > 0 else "places in the batch"
            raise Overloaded(
                f"no {short} for {tokens} tokens; offer the request elsewhere or again later",
                reason="NO_DECODE_PAGES" if places > 0 else "NO_DECODE_PLACE",
                retry_after_s=PAGES_RETRY_S,
            )
        self._reserved += 1
        return table

    def _evicting(self, attempt: Callable[[], T], spare: Sequence | None = None) -> T:
        """Try; while that fails, evict the oldest parked request and try again."""
        result = attempt()
        while not result and self.batch.evict_oldest_parked(spare):
            result = attempt()
        return result

    async def _await_admit(
        self, requests: AsyncIterator[private.DecodeRequest], *instead: str
    ) -> private.DecodeRequest:
        """`admit`, or what may come `instead`."""
        with anyio.move_on_after(self._admit_lease_s):
            return await next_message(requests, "admit", *instead)
        raise DeadlineExceeded(
            f"no `admit` within the reservation's lease of {self._admit_lease_s} s",
            reason="RESERVATION_EXPIRED",
        )

    async def _prefetch(self, ticket: private.KvTicket, table: PageTable) -> Fetch:
        """Follow an early ticket, layer by layer, until all are here."""
        assert self._puller is not None
        if ticket.token_count > table.capacity_tokens:
            raise InvalidRequest(
                f"prefetch names {ticket.token_count} cells, {table.capacity_tokens} are reserved"
            )
        cells = table.cells(ticket.token_count)
        fetch = await self._transfers.run(
            self._puller.begin, ticket, self.pool.layout, self.pool.cells, cells
        )
        while True:
            if await self._transfers.run(self._puller.advance, fetch):
                return fetch
            await anyio.sleep(LAYER_POLL_S)

    async def _pull(
        self, admit: private.Admit, table: PageTable, early: asyncio.Task[Fetch] | None
    ) -> private.Pulled:
        held = len(admit.token_ids) - 1
        if held != admit.ticket.token_count or not 0 < admit.prompt_tokens <= held:
            raise InvalidRequest(
                f"admit names {admit.ticket.token_count} cells for {len(admit.token_ids)} ids "
                f"({admit.prompt_tokens} prompt); expected the cells of all ids but the last"
            )
        need = cells_needed(admit.prompt_tokens, min(admit.credit_through, admit.max_tokens))
        if need > table.capacity_tokens:
            raise InvalidRequest(
                f"admit lets {admit.credit_through} tokens be made, which take {need} cells, but "
                f"{table.capacity_tokens} are reserved; send the rest as a credit"
            )
        if self._puller is None:
            require_place(admit.ticket, self.pool, table)
            return private.Pulled()
        started_s = anyio.current_time()
        if early is not None:
            moved = await self._transfers.run(
                self._puller.finish, await early, admit.ticket, self._digest
            )
        else:
            moved = await self._transfers.run(
                self._puller.pull,
                admit.ticket,
                self.pool.layout,
                self.pool.cells,
                table.cells(held),
                digest=self._digest,
            )
        self.transfers += 1
        self.transfer_bytes += moved.bytes
        # Of an early transfer, what the request had to wait for after its prefill.
        seconds = moved.seconds if early is None else anyio.current_time() - started_s
        return private.Pulled(transfer_s=seconds, bytes=moved.bytes)

    def _sequence(self, admit: private.Admit, table: PageTable) -> Sequence:
        return Sequence(
            epoch=admit.epoch,
            prompt_ids=list(admit.token_ids[: admit.prompt_tokens]),
            output_ids=list(admit.token_ids[admit.prompt_tokens :]),
            sampling=Sampling.from_wire(admit.sampling),
            credit_through=admit.credit_through,
            max_tokens=admit.max_tokens,
            table=table,
        )

    async def _read_credits(
        self, requests: AsyncIterator[private.DecodeRequest], sequence: Sequence
    ) -> None:
        async for request in requests:
            through = request.credit.through
            if sequence.over or through <= sequence.credit_through:
                continue
            need = cells_needed(len(sequence.prompt_ids), min(through, sequence.max_tokens))
            if self._evicting(partial(sequence.table.extend, need), spare=sequence):
                sequence.credit_through = through
                self.batch.raise_credit(sequence)
            elif not sequence.over:
                refused = private.ExtensionRefused(through=through)
                sequence.events.put_nowait(private.DecodeResponse(extension_refused=refused))

    def check_integrity(self) -> None:
        """Raise InternalError unless every page is free or owned exactly once."""
        self.pool.check_integrity()

    def status(self) -> private.WorkerStatus:
        """Counts for the gateway and for tests."""
        status = private.WorkerStatus(
            role=private.ROLE_DECODE,
            slots=self.batch.max_batch,
            slots_used=self.batch.running + self._reserved,
            pages=self.pool.pages,
            pages_used=self.pool.used,
            running=self.batch.running,
            parked=self.batch.parked,
            decode_steps_total=self.batch.steps,
            decoded_tokens_total=self.batch.decoded_tokens,
            transfers_total=self.transfers,
            transfer_bytes_total=self.transfer_bytes,
            rejections_total=self.rejections,
        )
        if self._puller is not None:
            self._puller.describe(status)
        return status
