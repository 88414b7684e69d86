"""The W3C `traceparent` that came with a call, for whoever makes spans of it."""

from __future__ import annotations

from contextvars import ContextVar

HEADER = "traceparent"

# Set by a listener in the task of its call; "" where none came.
TRACE_PARENT: ContextVar[str] = ContextVar("segue_trace_parent", default="")
