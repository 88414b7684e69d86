"""What is refused before an engine does any work, in the same words by every engine."""

from __future__ import annotations

from collections.abc import Sequence

from segue_device.engines.base import Capabilities
from segue_protocol.errors import ContextTooLong, InternalError, InvalidRequest, Unsupported
from segue_protocol.identity import ModelIdentity


def check_append(
    token_ids: Sequence[int],
    positions: Sequence[int],
    *,
    cells: Sequence[tuple[int, int]],
    vocab_size: int,
    capabilities: Capabilities,
) -> None:
    """Raise what :meth:`DeviceEngine.append` promises; `cells` are those in the cache."""
    if not token_ids or len(token_ids) != len(positions):
        raise InvalidRequest(
            f"append got {len(token_ids)} token ids and {len(positions)} positions; "
            "expected at least one id and one position for each"
        )
    if min(token_ids) < 0 or max(token_ids) >= vocab_size:
        odd = next(token for token in token_ids if not 0 <= token < vocab_size)
        raise InvalidRequest(
            f"token id {odd} is outside the model's vocabulary, expected 0 to {vocab_size - 1}; "
            "tokenize with the tokenizer of this model"
        )
    _check_positions(positions, cells[-1][0] if cells else -1, capabilities)
    total = len(cells) + len(token_ids)
    if total > capabilities.max_context_tokens or positions[-1] >= capabilities.max_positions:
        raise ContextTooLong(
            f"the append would end with {total} cells and position {positions[-1]}; this engine "
            f"holds {capabilities.max_context_tokens} cells and positions below "
            f"{capabilities.max_positions}: shorten the prompt or the answer, "
            "or load the engine with a larger context"
        )


def check_sizes(threads: int, max_cells: int, chunk_tokens: int, *, bound: int) -> None:
    """InvalidRequest for an engine's options out of range; `bound` is the model's context."""
    for name, value, most in (
        ("threads", threads, 1024),
        ("max_context_tokens", max_cells, bound),
        ("chunk_tokens", chunk_tokens, bound),
    ):
        if not 1 <= value <= most:
            raise InvalidRequest(f"{name} is {value}, expected 1 to {most} for this model")


def check_rewind(cells: int, have: int) -> None:
    """InvalidRequest unless 0 <= `cells` <= `have`."""
    if not 0 <= cells <= have:
        raise InvalidRequest(f"cannot rewind to {cells} cells: expected 0 to {have}")


def check_export(cells: int, have: int, identity: ModelIdentity) -> None:
    """InvalidRequest unless there are `cells` cells, and weights whose cells they are."""
    if not 1 <= cells <= have:
        raise InvalidRequest(f"cannot export {cells} cells: expected 1 to {have}")
    if not identity.weights_digest:
        raise InvalidRequest(
            f"the cells of {identity.model!r} cannot be told from those of another model: its "
            "weights have no digest; convert it with segue_device.convert",
            reason="NO_WEIGHTS_DIGEST",
        )


def check_empty(have: int) -> None:
    """InvalidRequest when the cache holds `have` cells, as importing others begins at none."""
    if have:
        raise InvalidRequest(
            f"the cache holds {have} cells; cells are imported into an empty one: rewind(0) first",
            reason="CACHE_NOT_EMPTY",
        )


def engine_closed() -> InvalidRequest:
    """The error of every call after close."""
    return InvalidRequest("this engine is closed; load another one", reason="ENGINE_CLOSED")


def missing_extra(extra: str, *modules: str) -> Unsupported:
    """The error when `modules`, which an optional extra brings, cannot be imported."""
    return Unsupported(
        f'{", ".join(modules)} cannot be imported; pip install "segue-device[{extra}]"',
        reason="EXTRA_MISSING",
    )


def no_logits() -> InvalidRequest:
    """The error of ``logits`` while there are none."""
    return InvalidRequest(
        "there are no logits: nothing was appended, or the engine was rewound or cancelled "
        "since; append a token first",
        reason="NO_LOGITS",
    )


def out_of_memory(what: str) -> InternalError:
    """The error when the device has no memory for `what`; cells there were stay valid."""
    return InternalError(
        f"this device has no memory for {what}; close other applications or engines, load the "
        "model with a smaller max_context_tokens, or take a smaller one",
        reason="OUT_OF_MEMORY",
    )


def says_no_memory(words: str) -> bool:
    """Whether a native library's error, which has no code for it, is about memory."""
    return any(each in words for each in ("bad_alloc", "allocate", "insufficient memory"))


def _check_positions(positions: Sequence[int], last: int, capabilities: Capabilities) -> None:
    """`last` is the highest position in the cache, -1 when it is empty."""
    compact = capabilities.positions == "compact"
    for position in positions:
        if position <= last:
            raise InvalidRequest(
                f"position {position} follows {last}; expected ascending positions, "
                "all above those in the cache"
            )
        if compact and position != last + 1:
            raise Unsupported(
                f"position {position} follows {last}; this model takes consecutive positions from "
                "0 only: convert it with segue_device.convert, or send the prompt unrefined",
                reason="GAPPED_POSITIONS",
            )
        last = position
