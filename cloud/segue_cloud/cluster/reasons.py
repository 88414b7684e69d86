"""Words that both sides of a join stream act on."""

from __future__ import annotations

# The probe went wrong again and again: only a new process may help.
PROBE_FAILED = "PROBE_FAILED"
