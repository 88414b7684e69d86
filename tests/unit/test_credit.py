"""The credit controller: extends when it must, by what it must, never shrinks."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from segue_device.credit import STEP_S, CreditView, next_credit
from segue_protocol.timeline import stall_free
from segue_protocol.tuning import REPLY_SLACK_S

VIEW = CreditView(
    credit_through=10,
    max_tokens=100,
    shown_tokens=8,
    show_interval_s=0.05,
    ready_in_s=0.0,
    absorb_per_token_s=0.001,
    cloud_reply_s=0.04,
)


def test_a_device_in_time_asks_for_nothing() -> None:
    assert next_credit(VIEW) is None
    assert next_credit(replace(VIEW, ready_in_s=0.09)) is None


def test_a_late_device_asks_for_what_it_lacks() -> None:
    # 2 tokens are left to show: 0.1 s. Ready in 0.345 s: five more last 0.245 s.
    assert next_credit(replace(VIEW, ready_in_s=0.345)) == 15


def test_one_extension_is_short_however_late_the_device_seems() -> None:
    assert next_credit(replace(VIEW, ready_in_s=60.0)) == 20


def test_it_waits_while_the_buffer_is_long() -> None:
    """An early estimate may still improve; every unneeded token costs a slot."""
    early = replace(VIEW, shown_tokens=0, ready_in_s=2.0)
    assert next_credit(early) is None


def test_a_device_that_never_catches_up_leaves_the_answer_to_the_cloud() -> None:
    hopeless = replace(VIEW, absorb_per_token_s=0.06, ready_in_s=1.0)
    assert next_credit(hopeless) == 100


@given(st.floats(0.0, 20.0), st.integers(0, 10), st.integers(1, 100))
def test_monotone_bounded_and_sufficient(ready_s: float, shown: int, limit: int) -> None:
    view = replace(VIEW, ready_in_s=ready_s, shown_tokens=shown, max_tokens=limit)
    through = next_credit(view)
    if through is None:
        return
    assert view.credit_through < through <= limit
    if through < limit:
        buffered = view.credit_through - shown
        late_s = ready_s - buffered * view.show_interval_s
        more = through - view.credit_through
        enough = [
            stall_free(
                cloud_tokens=tokens,
                prefill_left_s=late_s,
                show_interval_s=view.show_interval_s,
                absorb_per_token_s=view.absorb_per_token_s,
                handover_s=0.0,
            )
            for tokens in (more - 1, more)
        ]
        assert enough == [False, True] or more == math.ceil(STEP_S / 0.05) or more == 1
    buffer_s = (view.credit_through - shown) * view.show_interval_s
    assert buffer_s <= view.cloud_reply_s + REPLY_SLACK_S
