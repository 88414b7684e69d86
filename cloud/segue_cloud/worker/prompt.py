"""One prompt in the batch of an aggregated worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segue_cloud.engine.base import Chunk
from segue_cloud.kv.pages import PageTable

Logits = npt.NDArray[np.float32]


@dataclass(eq=False)
class Prompt:
    """State of one prefill between two iterations; the first `done` tokens have their K/V."""

    token_ids: Sequence[int]
    done: int
    table: PageTable
    # Those after the last token, [vocab], once every token is done.
    logits: asyncio.Future[Logits] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def left(self) -> int:
        return len(self.token_ids) - self.done

    def chunk(self, tokens: int) -> Chunk:
        """The next so many tokens."""
        end = self.done + tokens
        return Chunk(self.token_ids[self.done : end], range(self.done, end), self.table.cells(end))

    def advance(self, tokens: int, logits: Logits) -> None:
        """So many more are done; `logits` are those after the last of them."""
        self.done += tokens
        if not self.left and not self.logits.done():
            self.logits.set_result(logits)
