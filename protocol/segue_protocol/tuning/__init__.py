"""How one answer is shared between device and cloud: the decision both sides make alike.

The cloud asks :func:`decide` for its advice, the device for whether it can do
without the cloud; while an answer runs the device extends its credit by the same
no-stall condition. All are pure functions; the formulas are in ``docs/tuning.md``.
"""

from segue_protocol.tuning.decide import decide
from segue_protocol.tuning.decision import Binding, Decision, Place
from segue_protocol.tuning.explain import explain
from segue_protocol.tuning.view import (
    DEFAULT_PACE_S,
    REPLY_SLACK_S,
    CloudSpeed,
    Network,
    Targets,
    TuningView,
)

__all__ = [
    "DEFAULT_PACE_S",
    "REPLY_SLACK_S",
    "Binding",
    "CloudSpeed",
    "Decision",
    "Network",
    "Place",
    "Targets",
    "TuningView",
    "decide",
    "explain",
]
