"""The baseline of the forwarding benchmark: queues at the workers, chosen by their reports.

Every prefill worker takes whatever comes and works it off in turn; it reports
the prompt tokens it has still to prefill with every heartbeat. The gateway
sends a request to the worker whose last report was the smallest. `informed`
makes the baseline stronger: what was sent since the report is added to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from segue_cloud.cluster.links import DecodeStream, PrefillStream
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.errors import Unsupported
from segue_protocol.streams import LocalStream
from segue_protocol.wire import private


class _Queue:
    """A worker and what is known of the length of its queue."""

    def __init__(self, worker: PrefillWorker, *, informed: bool) -> None:
        self.worker = worker
        self.pending_tokens = 0
        self.known_tokens = 0  # by the gateway
        self.sent = 0
        self._informed = informed

    async def report(self, every_s: float, first_s: float) -> None:
        await asyncio.sleep(first_s)
        while True:
            self.known_tokens = self.pending_tokens
            await asyncio.sleep(every_s)

    async def prefill(
        self, requests: AsyncIterator[private.PrefillRequest]
    ) -> AsyncGenerator[private.PrefillResponse, None]:
        first = await anext(requests)
        waiting = len(first.job.token_ids)
        self.pending_tokens += waiting
        if self._informed:
            self.known_tokens += waiting

        async def everything() -> AsyncIterator[private.PrefillRequest]:
            yield first
            async for request in requests:
                yield request

        try:
            async with aclosing(self.worker.prefill(everything())) as responses:
                async for response in responses:
                    if response.HasField("prefilled"):
                        self.pending_tokens -= waiting
                        waiting = 0
                    yield response
        finally:
            self.pending_tokens -= waiting


class QueueAtPrefill:
    """All prefill workers as one member of the gateway's, which never rejects."""

    def __init__(
        self, workers: Sequence[PrefillWorker], *, report_s: float, informed: bool = False
    ) -> None:
        self._queues = [_Queue(worker, informed=informed) for worker in workers]
        self._reports = [
            asyncio.create_task(queue.report(report_s, report_s * place / len(workers)))
            for place, queue in enumerate(self._queues)
        ]

    def prefill(self) -> PrefillStream:
        # Ties go to the worker that was sent the least so far.
        queue = min(self._queues, key=lambda each: (each.known_tokens, each.sent))
        queue.sent += 1
        return LocalStream(queue.prefill)

    def decode(self) -> DecodeStream:
        raise Unsupported("these workers prefill; decode elsewhere")

    async def status(self) -> private.WorkerStatus:
        return private.WorkerStatus(role=private.ROLE_PREFILL)

    async def aclose(self) -> None:
        for report in self._reports:
            report.cancel()
        await asyncio.gather(*self._reports, return_exceptions=True)
