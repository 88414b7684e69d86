"""Makes the list of a prompt while its prefill goes through the layers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from segue_cloud.engine.base import CellIndex
from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.refine.attention import AttentionScorer
from segue_cloud.refine.base import Scorer
from segue_cloud.refine.guards import Guards
from segue_cloud.refine.ranges import Run, keep_ranges
from segue_protocol.errors import Cancelled


class Refiner:
    """Scores the prompts of one model. Stateless; one a prefill worker."""

    def __init__(self, layout: KvLayout, guards: Guards, *, scorer: Scorer | None = None) -> None:
        """Raises InvalidRequest for a scorer that asks for layers the model does not have."""
        self.layout = layout
        self.guards = guards
        # The best by benchmarks/refinement.py (docs/refinement.md).
        self.scorer = scorer or AttentionScorer()
        self.layers = self.scorer.layers(layout.num_layers)

    @property
    def window(self) -> int:
        """How many last tokens a pass must compute itself, whatever a cache holds."""
        return self.scorer.window

    def watch(
        self,
        ids: Sequence[int],
        keep_ratio: float,
        cells: Cells,
        where: CellIndex | slice,
        found: Callable[[list[Run]], None],
        *,
        ends_pass: bool = False,
    ) -> RefiningWatch:
        """A watch for the pass that ends the prompt `ids`, token i of which lies in cell where[i].

        `found` is called once with the list, in the engine's thread; with
        `ends_pass` the pass then ends with Cancelled.
        """
        return RefiningWatch(self, ids, keep_ratio, cells, where, found, ends_pass)


class RefiningWatch:
    """A :class:`~segue_cloud.engine.base.LayerWatch` of one prompt."""

    def __init__(
        self,
        refiner: Refiner,
        ids: Sequence[int],
        keep_ratio: float,
        cells: Cells,
        where: CellIndex | slice,
        found: Callable[[list[Run]], None],
        ends_pass: bool,
    ) -> None:
        self._refiner = refiner
        self._ids = ids
        self._keep_ratio = keep_ratio
        self._cells = cells
        self._where = where
        self._found = found
        self._ends_pass = ends_pass
        self._layers = refiner.layers
        self._scores = np.zeros(len(ids), np.float32)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the pass end with Cancelled behind the layer it is in. From any thread."""
        self._stopped.set()

    def wants_queries(self, layer: int) -> int:
        return self._refiner.scorer.window if layer in self._layers else 0

    def after_layer(self, layer: int, queries: npt.NDArray[np.float32] | None) -> None:
        if self._stopped.is_set():
            raise Cancelled("the prefill was given up")
        if layer not in self._layers:
            return
        refiner = self._refiner
        keys = refiner.layout.numbers(self._cells[layer, 0, self._where])
        self._scores += refiner.scorer.score(queries, keys)
        if layer == self._layers[-1]:
            self._found(keep_ranges(self._scores, self._ids, self._keep_ratio, refiner.guards))
            if self._ends_pass:
                raise Cancelled("the list is made, which is all this pass was for")
