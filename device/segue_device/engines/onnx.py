"""ONNX Runtime as a device engine: wheels for every platform, fast catch-up.

The graph is one that :mod:`segue_device.convert` made. Where it takes
``position_ids``, gapped positions are exact: the rotary step uses them while
the cells stay side by side in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_device.engines.base import Cancel, Capabilities
from segue_device.engines.cell_engine import CellEngine
from segue_device.engines.checks import check_sizes, missing_extra, out_of_memory, says_no_memory
from segue_device.engines.manifest import GRAPH_NAME, Manifest
from segue_device.engines.onnx_cache import OnnxCache
from segue_device.engines.saved_cells import SavedCells
from segue_protocol.errors import InternalError, InvalidRequest, NotFound, Unsupported

# Nothing is logged: whatever fails is raised, and an ended run is no failure.
_LOG_FATAL_ONLY = 4


class OnnxEngine(CellEngine):
    """A :class:`DeviceEngine` over ONNX Runtime on the CPU.

    `model_dir` is the output of :func:`segue_device.convert.convert_to_onnx`.
    `threads` compute; they sleep, not spin, between calls. The KV cache grows
    as it is used up to `max_context_tokens` (None: the model's own bound).
    Raises NotFound or InvalidRequest for a directory that is no such model or
    options out of range, Unsupported without onnxruntime or for a graph of
    another form.
    """

    def __init__(
        self,
        model_dir: str | Path,
        *,
        threads: int = 1,
        max_context_tokens: int | None = None,
        chunk_tokens: int = 256,
    ) -> None:
        directory = Path(model_dir)
        manifest = Manifest.read(directory)
        max_cells = (
            manifest.max_context_tokens if max_context_tokens is None else max_context_tokens
        )
        check_sizes(threads, max_cells, chunk_tokens, bound=manifest.max_context_tokens)
        identity = manifest.identity(directory)
        self._onnxruntime = _import_onnxruntime()
        self._session = _load_session(self._onnxruntime, directory / GRAPH_NAME, threads)
        self._has_position_ids = "position_ids" in _check_graph(self._session, directory)
        self._cache = OnnxCache(
            self._onnxruntime, self._session, head_dim=manifest.head_dim, max_cells=max_cells
        )
        super().__init__(
            identity,
            Capabilities(
                positions="exact" if self._has_position_ids else "compact",
                cancel_in_prefill=True,
                rewind=True,
                max_context_tokens=max_cells,
                chunk_tokens=chunk_tokens,
                max_positions=manifest.max_context_tokens,
            ),
            # Keys and values are the graph's own tensors, whatever runs it.
            cells_format="onnx",
        )
        self._logits: npt.NDArray[np.float32] = np.empty(0, np.float32)

    def _compute(self, token_ids: Sequence[int], positions: Sequence[int], cancel: Cancel) -> None:
        # Of this append alone: it stays terminated once a late cancel has reached it.
        options = self._onnxruntime.RunOptions()
        options.log_severity_level = _LOG_FATAL_ONLY

        def stop() -> None:
            options.terminate = True

        start = 0
        with cancel.listening(stop):
            while start < len(token_ids):
                cancel.raise_if_set()
                end = start + self._next_chunk(positions[start:])
                ids, places = token_ids[start:end], positions[start:end]
                self._logits = self._run(ids, places, options, cancel)
                self._cells.extend(zip(places, ids, strict=True))
                start = end

    def _last_logits(self) -> npt.NDArray[np.float32]:
        return np.array(self._logits)

    def _forget(self, cells: int) -> None:
        """Nothing: the next cells are written over those behind `cells`."""

    def _saved_tensors(self, cells: int) -> dict[str, npt.NDArray[Any]]:
        return self._cache.views(cells)

    def _load(self, saved: SavedCells) -> None:
        count = len(saved.cells)
        self._cache.reserve(count, keep=0)
        saved.read_into(self._cache.views(count))

    def _free(self) -> None:
        # The cache's binding belongs to the session, so the cache goes first.
        del self._cache, self._session

    def _next_chunk(self, positions: Sequence[int]) -> int:
        """How many of the tokens left the next model call takes."""
        longest = min(len(positions), self._capabilities.chunk_tokens)
        if self._cells:
            return longest
        # On an empty cache the attention kernel reads the first position only and
        # counts on from there, so the first chunk must end at the first gap.
        for index in range(1, longest):
            if positions[index] != positions[0] + index:
                return index
        return longest

    def _run(
        self, token_ids: Sequence[int], positions: Sequence[int], options: Any, cancel: Cancel
    ) -> npt.NDArray[np.float32]:
        """One model call; logits [vocab] behind the last token."""
        total = len(self._cells) + len(token_ids)
        self._cache.reserve(total, keep=len(self._cells))
        # Bound inputs borrow these arrays: they must live until the run is over.
        inputs = {
            "input_ids": np.asarray([token_ids], np.int64),
            "attention_mask": np.ones((1, total), np.int64),
        }
        if self._has_position_ids:
            inputs["position_ids"] = np.asarray([positions], np.int64)
        binding = self._cache.binding
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("logits")
        try:
            self._session.run_with_iobinding(binding, options)
        # onnxruntime's errors share no class but Exception.
        except Exception as error:
            cancel.raise_if_set()
            if says_no_memory(str(error)):
                raise out_of_memory(f"a chunk of {len(token_ids)}") from error
            raise InternalError(
                f"ONNX Runtime failed in a chunk of {len(token_ids)}: {error}"
            ) from error
        logits = binding.get_outputs()[0].numpy()
        return np.asarray(logits[0, -1], np.float32)


def _import_onnxruntime() -> Any:
    # Read when the library is loaded; the call covers an app that had loaded it before.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnx", "onnxruntime") from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _load_session(onnxruntime: Any, path: Path, threads: int) -> Any:
    if not path.is_file():
        raise NotFound(
            f"{path} is missing; convert the model again: "
            "python -m segue_device.convert HF_DIR OUT_DIR",
            reason="MODEL_FILE_MISSING",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_FATAL_ONLY
    # A device has a battery: threads that wait for work must not spin.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # onnxruntime's errors share no class but Exception.
    except Exception as error:
        if says_no_memory(str(error)):
            raise out_of_memory(str(path)) from error
        raise InvalidRequest(
            f"ONNX Runtime cannot load {path}: {error}; convert the model again",
            reason="MODEL_FILE_DAMAGED",
        ) from error


def _check_graph(session: Any, directory: Path) -> set[str]:
    """The names of the graph's inputs; Unsupported unless they are those bound here."""
    names = {given.name for given in session.get_inputs()}
    layers = {name for name in names if name.startswith("past_key_values.")}
    known = {"input_ids", "attention_mask", "position_ids"}
    missing = {"input_ids", "attention_mask"} - names
    if missing or not layers or names - layers - known:
        raise Unsupported(
            f"the graph in {directory} has the inputs {sorted(names - layers)} and {len(layers)} "
            "caches; expected input_ids, attention_mask, position_ids where it has them, and "
            "past_key_values.*: convert the model with segue_device.convert"
        )
    return names
