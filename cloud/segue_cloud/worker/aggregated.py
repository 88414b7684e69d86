"""The aggregated worker: both phases in one process (Sarathi-Serve, 2403.02310).

One engine, one page pool and one batch. Prefill writes into the pages that the
request has reserved for decoding, and decodes never wait for a prompt: each
iteration takes them first, then chunks of prompts within its budget.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from segue_cloud.kv.place import PlacedSlots
from segue_cloud.refine.refiner import Refiner
from segue_cloud.worker.batch import Batch
from segue_cloud.worker.compute import Compute
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.wire import private


class AggregatedWorker:
    """Serves `Prefill` and `Decode` over one batch. Run `batch.run()` beside it."""

    def __init__(
        self,
        batch: Batch,
        compute: Compute,
        *,
        prefill_slots: int,
        max_context_tokens: int,
        prefix_cache_bytes: int = 0,
        refiner: Refiner | None = None,
    ) -> None:
        """`prefill_slots`: how many requests may be in prefill at a time.

        No reservation is given to more: a request that would wait here for its
        prefill waits at the gateway, from where another worker can take it.
        """
        self.batch = batch
        slots = PlacedSlots(batch.pool, prefill_slots, max_context_tokens)
        self._prefill = PrefillWorker(
            batch.engine,
            slots,
            compute,
            prefix_cache_bytes=prefix_cache_bytes,
            batch=batch,
            refiner=refiner,
        )
        self._decode = DecodeWorker(batch, None, compute, max_reserved=prefill_slots)

    def prefill(
        self, requests: AsyncIterator[private.PrefillRequest]
    ) -> AsyncGenerator[private.PrefillResponse, None]:
        """See :meth:`PrefillWorker.prefill`."""
        return self._prefill.prefill(requests)

    def decode(
        self, requests: AsyncIterator[private.DecodeRequest]
    ) -> AsyncGenerator[private.DecodeResponse, None]:
        """See :meth:`DecodeWorker.decode`."""
        return self._decode.decode(requests)

    def check_integrity(self) -> None:
        """Raise InternalError unless slots, pages and cached bytes are accounted for."""
        self._prefill.check_integrity()
        self._decode.check_integrity()

    def status(self) -> private.WorkerStatus:
        """The counts of both; slots are the places in the batch."""
        status, prefill = self._decode.status(), self._prefill.status()
        status.role = private.ROLE_AGGREGATED
        status.prefilled_tokens_total = self.batch.prefilled_tokens
        status.cached_tokens_total = prefill.cached_tokens_total
        status.rejections_total += prefill.rejections_total
        return status
