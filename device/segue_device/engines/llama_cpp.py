"""llama.cpp as a device engine: one file of weights, quantized ones included, any CPU.

The file is one that :mod:`segue_device.convert` made, with its tokenizer and
manifest beside it. Gapped positions are exact (:mod:`segue_device.engines.llama_gaps`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_device.engines.base import Cancel, Capabilities
from segue_device.engines.cell_engine import CellEngine
from segue_device.engines.checks import check_sizes
from segue_device.engines.llama_context import LlamaContext, StopFlag
from segue_device.engines.manifest import Manifest
from segue_device.engines.saved_cells import SavedCells
from segue_protocol.errors import InvalidRequest

WEIGHTS_NAME = "model.gguf"
DIGEST_KEY = "segue.weights_digest"

_DEFAULT_CONTEXT_TOKENS = 8192
_STATE = "state"


class LlamaCppEngine(CellEngine):
    """A :class:`DeviceEngine` over llama.cpp on the CPU.

    `path` is the ``.gguf`` file that :func:`segue_device.convert.convert_to_gguf`
    made. `threads` compute. The KV cache is allocated at once for
    `max_context_tokens` (None: the model's own bound, at most 8192).

    By default attention and cache are fp32, so that logits of an fp32 model
    agree with torch's: within 1e-4 of the tiny model's at 350 tokens, within
    5e-4 at 2,000, as llama.cpp's rotary angles lose digits with the position.
    `flash_attention` is faster in long contexts
    and `half_precision_cache` half as large; either one costs about two digits
    and is named in ``identity.numerics``.

    Raises NotFound or InvalidRequest for a file that is no such model or
    options out of range, Unsupported without llama-cpp-python.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 1,
        max_context_tokens: int | None = None,
        chunk_tokens: int = 256,
        flash_attention: bool = False,
        half_precision_cache: bool = False,
    ) -> None:
        weights = Path(path)
        manifest = Manifest.read(weights.parent)
        bound = manifest.max_context_tokens
        max_cells = min(bound, _DEFAULT_CONTEXT_TOKENS)
        if max_context_tokens is not None:
            max_cells = max_context_tokens
        check_sizes(threads, max_cells, chunk_tokens, bound=bound)
        identity = manifest.identity(weights.parent)
        numerics = [identity.numerics]
        numerics += ["flash-attention"] if flash_attention else []
        numerics += ["fp16-cache"] if half_precision_cache else []
        identity = replace(identity, numerics="+".join(numerics))
        self._context = LlamaContext(
            weights,
            threads=threads,
            cells=max_cells,
            chunk_tokens=min(chunk_tokens, max_cells),
            flash_attention=flash_attention,
            half_precision_cache=half_precision_cache,
        )
        super().__init__(
            identity,
            Capabilities(
                positions="exact",
                cancel_in_prefill=True,
                rewind=True,
                max_context_tokens=max_cells,
                chunk_tokens=chunk_tokens,
                max_positions=bound,
            ),
            # A sequence's state names no version of its form, and builds differ in it.
            cells_format=f"llama-cpp-python {self._context.library_version}",
        )
        try:
            self._require_sidecar_of(manifest, weights)
        except InvalidRequest:
            self._context.close()
            raise

    def _compute(self, token_ids: Sequence[int], positions: Sequence[int], cancel: Cancel) -> None:
        # Of this append alone: a late cancel may set it when the next one is running.
        stop = StopFlag()
        start = 0
        with cancel.listening(stop.set):
            while start < len(token_ids):
                cancel.raise_if_set()
                end = start + self._next_chunk(positions[start:])
                last = end == len(token_ids)
                if not self._context.decode(
                    token_ids[start:end], positions[start], stop=stop, logits=last
                ):
                    cancel.raise_if_set()
                self._cells.extend(zip(positions[start:end], token_ids[start:end], strict=True))
                start = end

    def _last_logits(self) -> npt.NDArray[np.float32]:
        return self._context.logits()

    def _forget(self, cells: int) -> None:
        if cells < len(self._cells):
            self._context.remove_from(self._cells[cells][0])

    def _saved_tensors(self, cells: int) -> dict[str, npt.NDArray[Any]]:
        behind = self._cells[cells][0] if cells < len(self._cells) else None
        return {_STATE: self._context.state(behind)}

    def _load(self, saved: SavedCells) -> None:
        state = np.empty(saved.tensor_bytes(_STATE), np.uint8)
        saved.read_into({_STATE: state})
        self._context.restore(state)

    def _free(self) -> None:
        self._context.close()

    def _next_chunk(self, positions: Sequence[int]) -> int:
        """How many of the tokens left the next model call takes: it has no gap inside."""
        longest = min(len(positions), self._capabilities.chunk_tokens)
        for index in range(1, longest):
            if positions[index] != positions[0] + index:
                return index
        return longest

    def _require_sidecar_of(self, manifest: Manifest, weights: Path) -> None:
        """The identity comes from the files beside the weights, so they must be of one model."""
        digest = self._context.metadata(DIGEST_KEY)
        sizes = self._context.vocab_size, self._identity.vocab_size
        if digest != manifest.weights_digest or sizes[0] != sizes[1]:
            raise InvalidRequest(
                f"{weights} ({sizes[0]} ids, weights {str(digest)[:12]}) is not what the manifest "
                f"beside it describes ({sizes[1]} ids, weights {manifest.weights_digest[:12]}); "
                "convert the model with segue_device.convert",
                reason="MODEL_FILE_DAMAGED",
            )
