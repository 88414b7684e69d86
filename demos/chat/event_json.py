"""The SDK's events as JSON, in the names that the JavaScript SDK uses for its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

from segue_device import Done, Event, Progress, Result, SegueError
from segue_protocol.wire import public

# A secret between this device and its cloud.
_WITHHELD = {"resume_token"}
STALL_S = 0.25


def event_json(event: Event) -> dict[str, Any]:
    """One event: its `type`, and its fields in camel case."""
    if isinstance(event, Done):
        return {"type": event.type, "result": _result_json(event.result)}
    return {"type": event.type, **_fields_json(event)}


def progress_json(progress: Progress) -> dict[str, Any]:
    """How far an answer is, as an event of the demo's own."""
    return {"type": "progress", **_fields_json(progress)}


def error_json(error: SegueError) -> dict[str, Any]:
    """The end of an answer that failed."""
    return {
        "type": "error",
        "code": error.code,
        "reason": error.reason,
        "message": error.message,
        "partialTokens": len(error.partial),
    }


def _result_json(result: Result) -> dict[str, Any]:
    timings = result.timings
    return {
        "text": result.text,
        "tokenIds": list(result.token_ids),
        "finishReason": result.finish_reason.value,
        "seed": result.seed,
        "usage": _fields_json(result.usage),
        "takeoverIndex": result.takeover_index,
        "timings": {
            "ttftS": timings.ttft_s,
            "tpotS": timings.tpot_s,
            "e2eS": timings.e2e_s,
            "maxGapS": timings.max_gap_s,
            "stalls": timings.stalls(STALL_S),
            "takeoverGapS": timings.takeover_gap_s,
        },
        "cloud": _cloud_json(result.cloud),
        "explanation": result.explanation,
    }


def _cloud_json(finish: public.Finish | None) -> dict[str, Any] | None:
    """The cloud's own account, if it arrived."""
    if finish is None:
        return None
    return {"cloudTokens": finish.usage.cloud_tokens, "slotS": finish.timings.slot_s}


def _fields_json(value: Any) -> Mapping[str, Any]:
    names = [each.name for each in fields(value) if each.name not in _WITHHELD]
    return {_camel(name): _plain(getattr(value, name)) for name in names}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
