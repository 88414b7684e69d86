"""A worker in the gateway's own event loop: the machinery without processes."""

from __future__ import annotations

from segue_cloud.cluster.links import DecodeStream, PrefillStream
from segue_cloud.worker.aggregated import AggregatedWorker
from segue_cloud.worker.decode import DecodeWorker
from segue_cloud.worker.prefill import PrefillWorker
from segue_protocol.streams import LocalStream
from segue_protocol.wire import private


class LocalLink:
    """Workers in this event loop."""

    def __init__(
        self,
        *,
        prefill: PrefillWorker | AggregatedWorker | None = None,
        decode: DecodeWorker | AggregatedWorker | None = None,
    ) -> None:
        self._prefill = prefill
        self._decode = decode

    def prefill(self) -> PrefillStream:
        assert self._prefill is not None
        return LocalStream(self._prefill.prefill)

    def decode(self) -> DecodeStream:
        assert self._decode is not None
        return LocalStream(self._decode.decode)

    async def status(self) -> private.WorkerStatus:
        worker = self._prefill or self._decode
        assert worker is not None
        return worker.status()

    async def aclose(self, grace_s: float = 0.0) -> None:
        pass
