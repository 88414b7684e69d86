"""A cluster's status, to be read: who belongs to it, what it does and what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import Message

from segue_cloud.cluster.members import role_name
from segue_protocol.wire import private

INCARNATION_DIGITS = 8

WORKER_COLUMNS = (
    *("role", "group", "pid", "incarnation", "state", "slots", "pages", "running", "parked"),
    *("transfers", "rejected"),
)
GROUP_COLUMNS = (
    *("group", "prefill", "balanced", "decode", "T_p", "T_d", "cloud tokens", "requests/s"),
    "rejected",
)


def show(status: private.ClusterStatus, *, as_json: bool) -> str:
    """The whole status as one JSON object, or tables for people."""
    return json.dumps(_plain(status), indent=2) if as_json else "\n".join(lines(status))


def lines(status: private.ClusterStatus) -> list[str]:
    """The status for people."""
    shown = [
        f"gateway {status.gateway_pid}: {status.sessions_running} answers in progress, "
        f"{status.open_streams} worker streams, {status.dropped_tokens_total} tokens dropped",
        "",
        *_table(WORKER_COLUMNS, map(_worker, status.workers)),
    ]
    if not status.workers:
        shown.append("no worker answers")
    if status.groups:
        shown += ["", *_table(GROUP_COLUMNS, map(_group, status.groups))]
    for worker in status.workers:
        if worker.unready_reason:
            shown.append(f"worker {worker.pid} is not ready: {worker.unready_reason}")
        if worker.integrity_error:
            shown.append(f"worker {worker.pid}: counts do not add up: {worker.integrity_error}")
    return shown


def _worker(worker: private.WorkerStatus) -> Sequence[str]:
    return (
        role_name(worker.role),
        worker.group,
        str(worker.pid),
        worker.incarnation.hex()[:INCARNATION_DIGITS],
        "draining" if worker.draining else "serving" if worker.ready else "not ready",
        f"{worker.slots_used}/{worker.slots}",
        f"{worker.pages_used}/{worker.pages}" if worker.pages else "-",
        str(worker.running),
        str(worker.parked),
        str(worker.transfers_total),
        str(worker.rejections_total),
    )


def _group(group: private.GroupStatus) -> Sequence[str]:
    return (
        group.name,
        str(group.prefill_workers),
        # 0: not measured yet.
        f"{group.balanced_prefill_workers:.2f}" if group.balanced_prefill_workers else "-",
        str(group.decode_workers),
        f"{group.prefill_s:.3f} s" if group.prefill_s else "-",
        f"{group.decode_s:.3f} s" if group.decode_s else "-",
        f"{group.cloud_tokens:.1f}",
        f"{group.requests_per_s:.2f}",
        f"{group.rejected_share:.1%}",
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    table = [columns, *rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _plain(message: Message) -> dict[str, Any]:
    """Every field, unset ones too, under its name in the proto: numbers stay numbers
    (protobuf's own JSON makes strings of 64-bit ones), bytes are hex, enums are names."""
    plain: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None:  # repeated, in every message that comes here
            value = [_plain(each) for each in value]
        elif field.enum_type is not None:
            value = field.enum_type.values_by_number[value].name
        elif isinstance(value, bytes):
            value = value.hex()
        plain[field.name] = value
    return plain
