"""OpenTelemetry spans of an answer's life in the cloud (extra ``otel``).

Only the API is used: which SDK and exporter is the operator's choice, e.g.
``opentelemetry-instrument segue-cloud serve``. One span an answer; below it
one for every phase: forward (waiting for a worker), prefill, transfer, stream
(in the batch), parked. The steps without duration (start, admit, take over,
finish) are events; catching up happens on the device. Spans are made when the
answer is over, from what was measured anyway, so that streaming pays nothing.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from segue_cloud.gateway.state import RequestState
from segue_cloud.watch.base import Watch
from segue_cloud.watch.record import ERROR
from segue_cloud.watch.trace_parent import HEADER

if TYPE_CHECKING:
    from segue_cloud.gateway.session import Session
    from segue_cloud.watch.record import AnswerRecord

PHASES = {
    RequestState.WAITING: "forward",
    RequestState.PREFILLING: "prefill",
    RequestState.KV_READY: "transfer",
    RequestState.TRANSFERRING: "transfer",
    RequestState.DECODING: "stream",
    RequestState.PARKED: "parked",
}
EVENTS = frozenset({"start", "admit", "take over", "finish"})
_NS = 1_000_000_000


class TraceWatch(Watch):
    """Makes spans with `tracer`, below the caller's span where its `traceparent` came along."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    def ended(self, session: Session, answer: AnswerRecord) -> None:
        begin_ns = round(answer.arrived_unix_s * _NS)
        parent = self._propagator.extract({HEADER: session.trace_parent})
        span = self._tracer.start_span(
            "segue.answer", context=parent, kind=SpanKind.SERVER, start_time=begin_ns
        )
        if span.is_recording():
            span.set_attributes(
                {
                    f"segue.{name}": value
                    for name, value in dataclasses.asdict(answer).items()
                    if value is not None
                }
            )
            for step in session.measured.steps:
                if step.name in EVENTS:
                    span.add_event(step.name, {}, begin_ns + round(step.at_s * _NS))
            if answer.reason == ERROR:
                span.set_status(Status(StatusCode.ERROR, answer.error))
            self._phases(session, trace.set_span_in_context(span), begin_ns)
        span.end(begin_ns + round(answer.total_s * _NS))

    def _phases(self, session: Session, parent: Context, begin_ns: int) -> None:
        for (name, start_s), (_, end_s) in pairwise(_merged(session.measured.phases)):
            start_ns, end_ns = (begin_ns + round(each * _NS) for each in (start_s, end_s))
            child = self._tracer.start_span(f"segue.{name}", context=parent, start_time=start_ns)
            child.end(end_ns)


def _merged(phases: list[tuple[RequestState, float]]) -> list[tuple[str, float]]:
    """(name, begin in seconds), neighbours of one name as one; the last is the end."""
    merged: list[tuple[str, float]] = []
    for state, at_s in phases:
        name = PHASES.get(state, "end")
        if not merged or merged[-1][0] != name:
            merged.append((name, at_s))
    return merged


def tracing() -> TraceWatch:
    """With the tracer of this process."""
    return TraceWatch(trace.get_tracer("segue_cloud"))
