"""The cloud engine: transformers' models in torch, over caller-owned cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segue_cloud.engine.base import Chunk, LayerWatch
from segue_cloud.engine.checks import check_batch
from segue_cloud.engine.paged_attention import Step
from segue_cloud.kv.layout import Cells, KvLayout
from segue_protocol.identity import ModelIdentity


class TorchEngine:
    """A :class:`~segue_cloud.engine.base.CloudEngine`. Make it with `loading.load_engine`."""

    def __init__(self, model: Any, identity: ModelIdentity, layout: KvLayout) -> None:
        self.model = model
        self._identity = identity
        self._layout = layout
        self._cell_dtype = getattr(torch, layout.dtype)

    @property
    def identity(self) -> ModelIdentity:
        return self._identity

    @property
    def layout(self) -> KvLayout:
        return self._layout

    @property
    def max_context_tokens(self) -> int:
        return int(self.model.config.max_position_embeddings)

    @torch.inference_mode()
    def forward(
        self, cells: Cells, chunks: Sequence[Chunk], *, watch: LayerWatch | None = None
    ) -> npt.NDArray[np.float32]:
        """See the contract; logits are [len(chunks), vocab]."""
        check_batch(
            cells,
            chunks,
            self._layout,
            vocab_size=self._identity.vocab_size,
            max_context_tokens=self.max_context_tokens,
        )
        device = self.model.device
        # The view turns the 16 stored bits of bfloat16 into numbers; for the
        # other dtypes it changes nothing.
        step = Step(torch.from_numpy(cells).view(self._cell_dtype), chunks, device, watch)
        ids = [token for chunk in chunks for token in chunk.token_ids]
        positions = [position for chunk in chunks for position in chunk.positions]
        lasts = np.cumsum([len(chunk.token_ids) for chunk in chunks]) - 1
        output = self.model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            logits_to_keep=torch.from_numpy(lasts).to(device),
            step=step,
        )
        logits: npt.NDArray[np.float32] = output.logits[0].float().cpu().numpy()
        return logits
