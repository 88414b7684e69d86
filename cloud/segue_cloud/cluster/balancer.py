"""Keeps the ratio of prefill to decode workers of each group where its load wants it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segue_cloud.cluster.measures import GroupMeasures
from segue_cloud.cluster.members import Member, Membership, role_name
from segue_cloud.cluster.ratio import (
    Damping,
    RatioState,
    RatioView,
    balanced_prefill_workers,
    step,
)
from segue_cloud.watch.base import Watch
from segue_cloud.watch.logs import event
from segue_protocol.wire import private

if TYPE_CHECKING:
    from segue_cloud.gateway.session import Session
    from segue_cloud.watch.record import AnswerRecord

log = logging.getLogger(__name__)

STEP_S = 1.0


class GroupWatch(Watch):
    """Feeds the measures of every group with what the gateway sees."""

    def __init__(self, groups: Sequence[str]) -> None:
        self.measures = {group: GroupMeasures() for group in groups}

    def offered(self, member: Member, role: private.Role, rejection: str | None) -> None:
        now_s = asyncio.get_running_loop().time()
        self.measures[member.group].offered(now_s, rejected=rejection is not None)

    def ended(self, session: Session, answer: AnswerRecord) -> None:
        if not answer.cloud_tokens or answer.recomputed_tokens:
            return  # says nothing of what an ordinary answer takes
        self.measures[answer.group].answered(
            asyncio.get_running_loop().time(),
            prefill_s=answer.prefill_s,
            decode_s=answer.transfer_s + answer.slot_s,
            cloud_tokens=answer.cloud_tokens,
            ttft_s=answer.first_token_s,
        )


@dataclass
class Balancer:
    """Looks at the groups of `automatic` once a second and switches one worker at a time.

    `switch(member, role)` tells a worker to drain and to come back in `role`.
    Nothing is switched in a group while one of its workers drains: until it is
    back, neither its measures nor its numbers mean anything. Nor where two
    phases share a pool: there is no ratio of workers to keep.
    """

    membership: Membership
    measures: Mapping[str, GroupMeasures]
    switch: Callable[[Member, private.Role], None]
    automatic: Collection[str] = ()
    damping: Damping = field(default_factory=Damping)
    _states: dict[str, RatioState] = field(default_factory=dict)

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(STEP_S)
            self.step(asyncio.get_running_loop().time())

    def step(self, now_s: float) -> None:
        """Decide for every group, and tell the worker."""
        for group in self.automatic:
            members = self._members(group)
            if any(each.draining or not each.ready or each.pool for each in members):
                continue
            state = self._states.get(group, RatioState())
            self._states[group], role = step(state, self._view(group, now_s), now_s, self.damping)
            if role is not None:
                member = min(_others(members, role), key=lambda each: each.open_streams)
                event(
                    log,
                    logging.INFO,
                    "role switched",
                    group=group,
                    worker=member.name,
                    role=role_name(role),
                )
                self.measures[group].restart(now_s)
                self.switch(member, role)

    def statuses(self) -> list[private.GroupStatus]:
        """Of every group, now."""
        now_s = asyncio.get_running_loop().time()
        return [self.status(group, now_s) for group in self.measures]

    def status(self, group: str, now_s: float) -> private.GroupStatus:
        """What is measured, and what would be balanced."""
        view = self._view(group, now_s)
        found = self.measures[group].summary(now_s)
        shared = any(member.pool for member in self._members(group))
        return private.GroupStatus(
            name=group,
            prefill_workers=view.prefill_workers,
            decode_workers=view.decode_workers,
            prefill_s=found.prefill_s or 0.0,
            decode_s=found.decode_s or 0.0,
            cloud_tokens=found.cloud_tokens,
            requests_per_s=found.requests_per_s,
            rejected_share=found.rejected_share,
            balanced_prefill_workers=0.0 if shared else balanced_prefill_workers(view) or 0.0,
            time_to_first_token_s=found.ttft_s or 0.0,
            time_per_output_token_s=found.tpot_s or 0.0,
        )

    def _members(self, group: str) -> list[Member]:
        """Those that take requests, or will once more."""
        return [member for member in self.membership.members if member.group == group]

    def _view(self, group: str, now_s: float) -> RatioView:
        members = self._members(group)
        prefill = [each for each in members if each.serves(private.ROLE_PREFILL)]
        decode = [each for each in members if each.serves(private.ROLE_DECODE)]
        found = self.measures[group].summary(now_s)
        return RatioView(
            prefill_workers=len(prefill),
            decode_workers=len(decode),
            prefill_s=found.prefill_s,
            decode_s=found.decode_s,
            decode_places=max((each.status.slots for each in decode), default=0),
            rejected_share=found.rejected_share,
        )


def _others(members: Collection[Member], role: private.Role) -> list[Member]:
    return [member for member in members if member.role != role]
