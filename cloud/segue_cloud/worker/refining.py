"""One prompt's list, from the engine's thread to the stream that asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from segue_cloud.config import WorkerConfig
from segue_cloud.engine.base import CloudEngine
from segue_cloud.refine.attention import AttentionScorer, OneLayer
from segue_cloud.refine.guards import Guards
from segue_cloud.refine.ranges import Run
from segue_cloud.refine.refiner import Refiner
from segue_cloud.worker.compute import Compute
from segue_cloud.worker.slots import Slot
from segue_protocol.reference import reference_vocabulary
from segue_protocol.vocabulary import Vocabulary
from segue_protocol.wire import private, public


def refiner_of(config: WorkerConfig, engine: CloudEngine) -> Refiner:
    """The refiner of a worker process. Raises InvalidRequest for a layer the model has not."""
    # An emulated accelerator without a model has the reference's vocabulary.
    named = bool(config.model)
    vocabulary = Vocabulary.from_directory(config.model) if named else reference_vocabulary()
    layer = OneLayer(None if config.refine_layer < 0 else config.refine_layer)
    return Refiner(engine.layout, Guards.of(vocabulary), scorer=AttentionScorer(layer))


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
        *,
        looks_back: bool = False,
    ) -> None:
        """`looks_back`: the pass is for the list alone, and ends with it."""
        self.refined: asyncio.Future[private.Refined] = asyncio.get_running_loop().create_future()
        self.watch = refiner.watch(
            ids,
            keep_ratio,
            slot.cells,
            slot.where(len(ids)),
            lambda kept: compute.report(self._tell, kept),
            ends_pass=looks_back,
        )
        # The tokens whose queries refine must be computed, whatever a cache holds.
        self.cacheable_tokens = max(0, len(ids) - max(1, refiner.window))
        self._started_s = asyncio.get_running_loop().time()

    def begin(self, tell: Callable[[private.PrefillResponse], None]) -> None:
        """The prefill begins now; `tell` the list when it is there."""
        self._started_s = asyncio.get_running_loop().time()
        self.refined.add_done_callback(
            lambda done: tell(private.PrefillResponse(refined=done.result()))
        )

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
