"""The account of one answer: ids, counts and durations, never a token or a text."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from segue_cloud.watch.base import Watch
from segue_protocol.errors import InvalidRequest
from segue_protocol.wire import public

if TYPE_CHECKING:
    from segue_cloud.gateway.session import Session

ERROR = "error"


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """The cloud's part of one answer; durations are of the gateway's clock.

    Arrival, lengths, credit and takeover index are what a replay needs; how
    long the device's part became, the cloud does not know.
    """

    generation_id: str
    request_id: str
    tenant: str
    group: str
    arrived_unix_s: float
    prompt_tokens: int
    # Of an earlier generation, in `output_prefix`; not made here.
    prefix_tokens: int
    max_tokens: int
    # Output indices below this could be made in the end.
    credit: int
    # Made here, discarded ones included.
    cloud_tokens: int
    discarded_tokens: int
    # The cloud's log at the end, prefix included.
    output_tokens: int
    # None: the device did not take over.
    takeover_index: int | None
    # stop, length, cancelled, taken_over or error.
    reason: str
    # The error's reason code, "" without one.
    error: str
    # From arrival; None: there was none.
    first_token_s: float | None
    last_token_s: float | None
    total_s: float
    # Of the first attempt; the others are sums over all attempts.
    waiting_s: float
    prefill_s: float
    # Of the prompt, kept and told so; None: it was not refined.
    kept_tokens: int | None
    # From the begin of the prefill until the kept were known.
    list_s: float
    transfer_s: float
    # In the decode batch.
    slot_s: float
    recomputed_tokens: int
    dropped_tokens: int
    lost_workers: int
    prefix_mismatches: int


def record_of(session: Session) -> AnswerRecord:
    """The account of a session that has just ended."""
    measured, log, request = session.measured, session.log, session.request
    assert measured.ended_s is not None
    taken_over = session.finish_reason == public.FINISH_REASON_TAKEN_OVER
    return AnswerRecord(
        generation_id=session.generation_id,
        request_id=request.request_id,
        tenant=session.scope.tenant,
        group=session.scope.group,
        arrived_unix_s=measured.created_unix_s,
        prompt_tokens=len(request.prompt_ids),
        prefix_tokens=log.prefix_length,
        max_tokens=request.max_tokens,
        credit=session.credit,
        cloud_tokens=len(log) + session.discarded - log.prefix_length,
        discarded_tokens=session.discarded,
        output_tokens=len(log),
        takeover_index=len(log) if taken_over else None,
        reason=_reason(session),
        error=session.error.reason if session.error else "",
        first_token_s=_since(measured.created_s, measured.first_token_s),
        last_token_s=_since(measured.created_s, measured.last_token_s),
        total_s=measured.ended_s - measured.created_s,
        waiting_s=measured.waiting_s,
        prefill_s=measured.prefill_s,
        kept_tokens=session.refinement.kept_tokens,
        list_s=measured.list_s,
        transfer_s=measured.transfer_s,
        slot_s=measured.slot_s,
        recomputed_tokens=measured.recomputed_tokens,
        dropped_tokens=log.dropped,
        lost_workers=session.lost_workers,
        prefix_mismatches=session.prefix_mismatches,
    )


def _reason(session: Session) -> str:
    if session.finish_reason is None:
        return ERROR
    return public.FinishReason.Name(session.finish_reason).removeprefix("FINISH_REASON_").lower()


def _since(begin_s: float, at_s: float | None) -> float | None:
    return None if at_s is None else at_s - begin_s


class AnswerLog(Watch):
    """Appends every answer's record to a file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidRequest when the file cannot be written."""
        try:
            self._file: TextIO = path.open("a", buffering=1, encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(
                f"cannot write the answer log {path}: {error.strerror}; "
                "name a file in a directory that exists and may be written"
            ) from error

    def ended(self, session: Session, answer: AnswerRecord) -> None:
        self._file.write(json.dumps(dataclasses.asdict(answer)) + "\n")

    def close(self) -> None:
        self._file.close()
