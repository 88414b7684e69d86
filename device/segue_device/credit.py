"""When to ask the cloud for more tokens, and how many.

The first credit is the tuner's advice. It is extended when the device's own
measured prefill says that it will be late, by the tuner's no-stall condition,
and no earlier than it must be sent to arrive in time: every unneeded token
holds a slot of the cloud.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from segue_protocol.timeline import n_star
from segue_protocol.tuning import REPLY_SLACK_S


@dataclass(frozen=True, slots=True)
class CreditView:
    """State of one answer. Times are seconds on the device's clock."""

    credit_through: int
    max_tokens: int
    shown_tokens: int
    show_interval_s: float
    # Until the device has prefilled the prompt and absorbed what it received.
    ready_in_s: float
    absorb_per_token_s: float
    # From sending a credit to receiving the token it allows.
    cloud_reply_s: float


# One extension lasts this long at most. A device that is held up for a moment
# looks very late; asked for at once, all of that would be made for nothing.
STEP_S = 0.5


def next_credit(view: CreditView) -> int | None:
    """The new absolute credit, or None to leave it.

    What is left to show under the present credit lasts `buffer_s`. If the device
    is ready later than that, the difference is a stall, unless tokens come:
    each new one lasts an interval and costs one absorption.
    """
    if view.credit_through >= view.max_tokens:
        return None
    buffer_s = (view.credit_through - view.shown_tokens) * view.show_interval_s
    late_s = view.ready_in_s - buffer_s
    if late_s <= 0 or buffer_s > view.cloud_reply_s + REPLY_SLACK_S:
        return None
    needed = n_star(
        prefill_left_s=late_s,
        show_interval_s=view.show_interval_s,
        absorb_per_token_s=view.absorb_per_token_s,
        handover_s=0.0,
    )
    if needed is None:  # never catches up at this pace: the cloud goes on
        return view.max_tokens
    more = min(needed, math.ceil(STEP_S / view.show_interval_s))
    return min(view.credit_through + more, view.max_tokens)
