"""Attention over caller-owned cells, through transformers' attention registry.

The model code stays transformers' own; only the function that attends is ours.
One ragged batch mixes prompt chunks with single decoded tokens: the single
ones, however many, share one gather and one attention call a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from segue_cloud.engine.base import Chunk

NAME = "segue_paged"


@dataclass(frozen=True)
class _Long:
    """A chunk of several tokens: rows [start, end) of the batch."""

    start: int
    end: int
    cells: torch.Tensor | slice
    total: int


class Step:
    """Where the tokens of one forward pass go and what each of them may see.

    ``cells`` is [layers, 2, n_cells, kv_heads, head_dim].
    """

    def __init__(self, cells: torch.Tensor, chunks: Sequence[Chunk]) -> None:
        self.cells = cells
        writes: list[torch.Tensor] = []
        single: list[torch.Tensor] = []
        single_rows: list[int] = []
        self.long: list[_Long] = []
        row = 0
        for chunk in chunks:
            new = len(chunk.token_ids)
            if isinstance(chunk.cells, slice):
                numbers = torch.arange(chunk.cells.start or 0, chunk.cells.stop)
                source: torch.Tensor | slice = chunk.cells
            else:
                source = numbers = torch.from_numpy(chunk.cells.copy())
            writes.append(numbers[len(numbers) - new :])
            if new == 1:
                single.append(numbers)
                single_rows.append(row)
            else:
                self.long.append(_Long(row, row + new, source, len(numbers)))
            row += new
        self.rows = row
        self.write = torch.cat(writes)
        self.single_rows = torch.tensor(single_rows)
        self.gather, self.mask = _pad(single)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Write key and value [rows, kv_heads, d], attend for query [rows, heads, d]."""
        keys, values = self.cells[layer, 0], self.cells[layer, 1]
        keys[self.write] = key.to(keys.dtype)
        values[self.write] = value.to(values.dtype)
        gqa = query.shape[1] != key.shape[1]
        if not self.long:
            return self._attend_single(query, keys, values, scale, gqa)
        out = torch.empty_like(query)
        if len(self.single_rows):
            single = query[self.single_rows]
            out[self.single_rows] = self._attend_single(single, keys, values, scale, gqa)
        for chunk in self.long:
            new = chunk.end - chunk.start
            mask = None
            if new != chunk.total:
                mask = torch.ones(new, chunk.total, dtype=torch.bool, device=query.device)
                mask = mask.tril(chunk.total - new)
            attended = scaled_dot_product_attention(
                query[chunk.start : chunk.end].transpose(0, 1)[None],
                keys[chunk.cells].transpose(0, 1)[None].to(query.dtype),
                values[chunk.cells].transpose(0, 1)[None].to(query.dtype),
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=gqa,
            )
            out[chunk.start : chunk.end] = attended[0].transpose(0, 1)
        return out

    def _attend_single(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
        gqa: bool,
    ) -> torch.Tensor:
        attended = scaled_dot_product_attention(
            query[:, :, None],
            keys[self.gather].transpose(1, 2).to(query.dtype),
            values[self.gather].transpose(1, 2).to(query.dtype),
            attn_mask=self.mask,
            scale=scale,
            enable_gqa=gqa,
        )
        return attended[:, :, 0]


def _pad(sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cell numbers [batch, longest] and a mask of the padding, None if there is none."""
    if not sequences:
        return torch.empty(0, 0, dtype=torch.long), None
    gather = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
    lengths = torch.tensor([len(each) for each in sequences])
    if int(lengths.min()) == gather.shape[1]:
        return gather, None
    return gather, (torch.arange(gather.shape[1]) < lengths[:, None])[:, None, None]


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    step: Step,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' signature: query [1, heads, rows, d]; returns [1, rows, heads, d]."""
    out = step.attend(
        int(module.layer_idx),  # type: ignore[arg-type]
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        scaling,
    )
    return out[None], None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
