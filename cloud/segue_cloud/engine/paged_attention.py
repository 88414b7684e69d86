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

from segue_cloud.engine.base import Chunk, LayerWatch

NAME = "segue_paged"

# Queries that attend at once over cells of an earlier pass: bounds the mask.
BLOCK_ROWS = 512


@dataclass(frozen=True, slots=True)
class _Long:
    """A chunk of several tokens: rows [start, end) of the batch.

    ``cells`` are those of the whole sequence, a slice where they are
    consecutive (no gather then). ``mask`` is bool [block, total] for the last
    block of rows, None when the whole sequence is new, which is plain causal
    attention. Its lower right corner of [rows, seen] is the mask of the rows
    whose last one sees the first `seen` cells.
    """

    start: int
    end: int
    cells: torch.Tensor | slice
    mask: torch.Tensor | None


class Step:
    """Where the tokens of one forward pass go and what each of them may see.

    ``cells`` is [layers, 2, n_cells, kv_heads, head_dim] in host memory; the
    model may compute on `device`.
    """

    def __init__(
        self,
        cells: torch.Tensor,
        chunks: Sequence[Chunk],
        device: torch.device | str = "cpu",
        watch: LayerWatch | None = None,
    ) -> None:
        self.cells = cells
        self.watch = watch
        self.last_new = len(chunks[-1].token_ids)
        writes: list[torch.Tensor] = []
        single: list[torch.Tensor] = []
        single_rows: list[int] = []
        self.long: list[_Long] = []
        row = 0
        for chunk in chunks:
            new = len(chunk.token_ids)
            # Copied because page tables hand out read-only views, which torch warns of.
            numbers = torch.from_numpy(chunk.cell_numbers().copy())
            writes.append(numbers[-new:])
            if new == 1:
                single.append(numbers)
                single_rows.append(row)
            else:
                mask = None
                if new < chunk.total:
                    rows = min(new, BLOCK_ROWS)
                    mask = torch.ones(rows, chunk.total, dtype=torch.bool, device=device)
                    mask = mask.tril(chunk.total - rows)
                source = chunk.cells if isinstance(chunk.cells, slice) else numbers
                self.long.append(_Long(row, row + new, source, mask))
            row += new
        self.write = _as_slice(torch.cat(writes))
        self.single_rows = torch.tensor(single_rows, device=device)
        self.gather, self.mask = _pad(single)
        self.mask = None if self.mask is None else self.mask.to(device)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Write key and value [rows, kv_heads, d], attend for query [rows, heads, d]."""
        planes = self.cells[layer]
        planes[0, self.write] = key.to(planes.device)
        planes[1, self.write] = value.to(planes.device)
        if self.watch is not None:
            wanted = min(self.watch.wants_queries(layer), self.last_new)
            queries = query[len(query) - wanted :].float().cpu().numpy() if wanted else None
            self.watch.after_layer(layer, queries)
        if not self.long:
            return self._attend_single(planes, query, scale)
        out = torch.empty_like(query)
        if len(self.single_rows):
            out[self.single_rows] = self._attend_single(planes, query[self.single_rows], scale)
        for chunk in self.long:
            keys, values = planes[:, chunk.cells].to(query.device)
            rows = slice(chunk.start, chunk.end)
            out[rows] = _attend_long(query[rows], keys, values, chunk.mask, scale)
        return out

    def _attend_single(
        self, planes: torch.Tensor, query: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """One new token of each of several sequences; query and result [batch, heads, d]."""
        batch, longest = self.gather.shape
        kv_heads, width = planes.shape[2:]
        gathered = planes.index_select(1, self.gather.view(-1)).to(query.device)
        keys, values = gathered.view(2, batch, longest, kv_heads, width).transpose(2, 3)
        # The query heads that share a key head take the place of query
        # positions: the same products without repeating the keys.
        attended = scaled_dot_product_attention(
            query.reshape(batch, kv_heads, -1, width),
            keys,
            values,
            attn_mask=self.mask,
            scale=scale,
        )
        return attended.reshape(query.shape)


def _attend_long(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """The new tokens of one sequence: query and result [new, heads, d], keys [total, kv_heads, d].

    Without a mask torch's own causal attention needs no more than a block of
    memory; with one it is cut into blocks here.
    """
    new, total = len(query), len(keys)
    block = new if mask is None else len(mask)
    out = torch.empty_like(query)
    for start in range(0, new, block):
        end = min(start + block, new)
        seen = total - new + end
        attended = scaled_dot_product_attention(
            query[start:end].transpose(0, 1)[None],
            keys[:seen].transpose(0, 1)[None],
            values[:seen].transpose(0, 1)[None],
            attn_mask=None if mask is None else mask[start - end :, -seen:],
            is_causal=mask is None,
            scale=scale,
            enable_gqa=query.shape[1] != keys.shape[1],
        )
        out[start:end] = attended[0].transpose(0, 1)
    return out


def _as_slice(numbers: torch.Tensor) -> torch.Tensor | slice:
    """Consecutive cells as a slice: one block copy instead of a scatter."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers) and bool((numbers.diff() == 1).all()):
        return slice(first, last + 1)
    return numbers


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
# The step knows who sees whom; transformers' own mask would be [rows, rows].
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
