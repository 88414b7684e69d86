"""Who looks on while the layers of a prompt are computed."""

from __future__ import annotations

from collections.abc import Sequence

from segue_cloud.engine.base import LayerWatch
from segue_cloud.kv.contiguous import Slot as ContiguousSlot
from segue_cloud.worker.prompt import Logits


class LayersDone:
    """Tells the readers of a slot, from the engine's thread, which layers are written."""

    def __init__(self, slot: ContiguousSlot) -> None:
        self._slot = slot

    def wants_queries(self, layer: int) -> int:
        return 0

    def after_layer(self, layer: int, queries: Logits | None) -> None:
        self._slot.layer_done(layer + 1)


class _Several:
    def __init__(self, watches: Sequence[LayerWatch]) -> None:
        self._watches = watches

    def wants_queries(self, layer: int) -> int:
        return max(watch.wants_queries(layer) for watch in self._watches)

    def after_layer(self, layer: int, queries: Logits | None) -> None:
        for watch in self._watches:
            wanted = watch.wants_queries(layer)
            handed = queries[-wanted:] if queries is not None and wanted else None
            watch.after_layer(layer, handed)


def all_of(watches: Sequence[LayerWatch]) -> LayerWatch | None:
    """One watch that calls each of them in turn; None for none."""
    return watches[0] if len(watches) == 1 else _Several(watches) if watches else None
