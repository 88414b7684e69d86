"""One sequence in llama.cpp, through the C interface that llama-cpp-python declares.

Knows pointers, batches and return codes; :mod:`segue_device.engines.llama_cpp`
knows the contract. Every call releases the GIL.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue_device.engines.checks import missing_extra, out_of_memory, says_no_memory
from segue_device.engines.llama_gaps import move_last_cell
from segue_device.engines.llama_state import SEQUENCE, SEQUENCES, State, read_state, write_state
from segue_protocol.errors import InternalError, InvalidRequest, NotFound, SegueError, Unsupported

_F32, _F16 = 0, 1  # ggml_type
_LOG_ERROR = 4  # ggml_log_level
_ABORTED = 2  # of llama_decode
_DIGITS = 128


class StopFlag:
    """Stops a running decode from any thread, before its next operation."""

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(2)

    def set(self) -> None:
        self._text[0] = b"\x01"

    @property
    def address(self) -> ctypes.c_void_p:
        return ctypes.cast(self._text, ctypes.c_void_p)


class LlamaContext:
    """A model, its KV cache of `cells` cells and one sequence in it.

    A decode takes up to `chunk_tokens` tokens. Raises Unsupported without
    llama-cpp-python, NotFound without the file, InvalidRequest when llama.cpp
    cannot read it, InternalError when there is not enough memory.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        cells: int,
        chunk_tokens: int,
        flash_attention: bool,
        half_precision_cache: bool,
    ) -> None:
        self._llama = llama = _import_llama_cpp()
        if not path.is_file():
            raise NotFound(
                f"{path} is missing; convert the model: "
                "python -m segue_device.convert HF_DIR OUT_DIR --format gguf",
                reason="MODEL_FILE_MISSING",
            )
        _last_words.clear()
        model_params = llama.llama_model_default_params()
        model_params.n_gpu_layers = 0
        # Quantized weights repacked for AMX tiles crash the process in their first batch
        # (ggml-org/llama.cpp#20824, #26954); the plain kernels of such a CPU do not.
        model_params.use_extra_bufts = b"AMX_INT8 = 1" not in llama.llama_print_system_info()
        self._model = llama.llama_model_load_from_file(os.fsencode(path), model_params)
        if not self._model:
            raise _not_loaded(str(path))
        params = llama.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = params.n_ubatch = chunk_tokens
        params.n_seq_max = SEQUENCES
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = int(flash_attention)
        params.type_k = params.type_v = _F16 if half_precision_cache else _F32
        params.no_perf = True
        self._context = llama.llama_init_from_model(self._model, params)
        if not self._context:
            llama.llama_model_free(self._model)
            raise _not_loaded(f"{path} with {cells} cells")
        self._batch = llama.llama_batch_init(chunk_tokens, 0, 1)
        # Also runs when an engine is dropped without close; a second call does nothing.
        self._free = weakref.finalize(self, _free, llama, self._model, self._context, self._batch)
        self._memory = llama.llama_get_memory(self._context)
        self.library_version: str = llama.__version__
        self.vocab_size: int = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        self._fill_batch(chunk_tokens)

    def metadata(self, key: str) -> str | None:
        """The text under `key` in the file, None without it."""
        text = ctypes.create_string_buffer(_DIGITS)
        length = self._llama.llama_model_meta_val_str(self._model, key.encode(), text, len(text))
        return text.value.decode("utf-8", errors="replace") if length >= 0 else None

    def decode(
        self, token_ids: Sequence[int], first_position: int, *, stop: StopFlag, logits: bool
    ) -> bool:
        """Compute tokens at consecutive positions; `logits` asks for those of the last.

        False when `stop` ended it: no cell of these tokens is left then.
        InternalError when llama.cpp fails.
        """
        last = self._llama.llama_memory_seq_pos_max(self._memory, SEQUENCE)
        if last not in (-1, first_position - 1):
            move_last_cell(self._llama, self._context, last, first_position - 1)
        count = len(token_ids)
        self._batch.n_tokens = count
        self._tokens[:count] = token_ids
        self._positions[:count] = np.arange(first_position, first_position + count)
        self._outputs[:count] = 0
        self._outputs[count - 1] = logits
        # C's strlen is true for the text "\x01" and false for "". A callback in
        # Python would take the GIL for every operation of the graph: behind a busy
        # Python thread a chunk took half as long again.
        self._llama.llama_set_abort_callback(self._context, self._strlen, stop.address)
        result = self._llama.llama_decode(self._context, self._batch)
        if result == 0:
            return True
        self.remove_from(first_position)
        if result == _ABORTED:
            return False
        raise InternalError(
            f"llama.cpp failed with {result} in a chunk of {count}: {' '.join(_last_words)}"
        )

    def logits(self) -> npt.NDArray[np.float32]:
        """A copy of the logits [vocab_size] that the last decode was asked for."""
        row = self._llama.llama_get_logits_ith(self._context, -1)
        return np.array(np.ctypeslib.as_array(row, (self.vocab_size,)))

    def remove_from(self, position: int) -> None:
        """Forget every cell at `position` and behind it."""
        self._llama.llama_memory_seq_rm(self._memory, SEQUENCE, position, -1)

    def state(self, behind: int | None) -> State:
        """The cells before the position `behind`, all for None, as llama.cpp saves them."""
        return read_state(self._llama, self._context, 0, -1 if behind is None else behind)

    def restore(self, state: State) -> None:
        """Fill the empty sequence from `state`; InternalError, and it stays empty, if refused."""
        if not write_state(self._llama, self._context, state, SEQUENCE):
            raise InternalError(f"llama.cpp cannot restore its cells: {' '.join(_last_words)}")

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._free()

    def _fill_batch(self, size: int) -> None:
        """Set what no decode changes and keep views on what each one does."""
        batch, view = self._batch, np.ctypeslib.as_array
        self._tokens = view(batch.token, (size,))
        self._positions = view(batch.pos, (size,))
        self._outputs = view(batch.logits, (size,))
        view(batch.n_seq_id, (size,))[:] = 1
        for index in range(size):
            batch.seq_id[index][0] = SEQUENCE
        library: Any = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
        self._strlen = ctypes.cast(library.strlen, self._llama.ggml_abort_callback)


# Errors as llama.cpp logs them; nothing is printed, whatever fails is raised with these.
_last_words: deque[str] = deque(maxlen=4)
# Native code calls it as long as the process lives.
_log_callback: Any = None


def _import_llama_cpp() -> Any:
    global _log_callback
    try:
        import llama_cpp
    except ImportError as error:
        raise missing_extra("llama", "llama_cpp") from error
    # What llama_cpp raises when it finds no library, or one of another machine.
    except (RuntimeError, OSError) as error:
        raise Unsupported(
            f"llama-cpp-python is installed but its library cannot be loaded: {error}; "
            "build it on this machine: pip install --force-reinstall --no-cache-dir "
            "--no-binary llama-cpp-python llama-cpp-python",
            reason="EXTRA_DAMAGED",
        ) from error
    if _log_callback is None:

        def keep(level: int, text: bytes, _data: object) -> None:
            if level == _LOG_ERROR:
                _last_words.append(text.decode("utf-8", errors="replace").strip())

        _log_callback = llama_cpp.llama_log_callback(keep)
        llama_cpp.llama_log_set(_log_callback, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
    return llama_cpp


def _free(llama: Any, model: Any, context: Any, batch: Any) -> None:
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    llama.llama_model_free(model)


def _not_loaded(what: str) -> SegueError:
    words = " ".join(_last_words)
    if says_no_memory(words):
        return out_of_memory(f"{what} ({words})")
    return InvalidRequest(
        f"llama.cpp cannot load {what}: {words}; convert the model again",
        reason="MODEL_NOT_LOADED",
    )
