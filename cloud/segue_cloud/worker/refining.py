"""One prompt's list, from the engine's thread to the stream that asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from segue_cloud.refine.ranges import Run
from segue_cloud.refine.refiner import Refiner
from segue_cloud.worker.compute import Compute
from segue_cloud.worker.slots import Slot
from segue_protocol.wire import private, public


class Refining:
    """Watches the prefill of one prompt. Make it on the event loop, as its turn begins or before.

    Done, `refined` holds the message with the list.
    """

    def __init__(
        self,
        refiner: Refiner,
        ids: Sequence[int],
        keep_ratio: float,
        slot: Slot,
        compute: Compute,
    ) -> None:
        self.refined: asyncio.Future[private.Refined] = asyncio.get_running_loop().create_future()
        self.watch = refiner.watch(
            ids,
            keep_ratio,
            slot.cells,
            slot.where(len(ids)),
            lambda kept: compute.report(self._tell, kept),
        )
        # The tokens whose queries refine must be computed, whatever a cache holds.
        self.cacheable_tokens = len(ids) - refiner.window
        self._started_s = asyncio.get_running_loop().time()

    def begin(self) -> None:
        """The prefill begins now."""
        self._started_s = asyncio.get_running_loop().time()

    @property
    def list_s(self) -> float:
        """How long the list took; 0 while there is none."""
        return self.refined.result().list_s if self.refined.done() else 0.0

    def stop(self) -> None:
        """End the prefill behind the layer it is in."""
        self.watch.stop()

    def _tell(self, kept: Sequence[Run]) -> None:
        ranges = [public.Range(start=start, end=end) for start, end in kept]
        list_s = asyncio.get_running_loop().time() - self._started_s
        self.refined.set_result(private.Refined(kept=ranges, list_s=list_s))
