"""The ways to answer that are compared. Each is given the same requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from demos.trace.aggregated import AggregatedGateway
from demos.trace.case import Case
from demos.trace.events import Events
from demos.trace.gateway import Gateway
from demos.trace.pd import PdGateway
from demos.trace.phone import Done, Phone
from demos.trace.requests import Request
from demos.trace.split import QualityTable, RoutedPhone, SplitPhone
from demos.trace.whole import WholeAnswer
from segue_protocol.tuning import CloudSpeed, Place, Targets, TuningView, decide


class Cloud(Enum):
    """What a policy needs of the cloud."""

    NONE = auto()
    AGGREGATED = auto()
    PD = auto()


Begin = Callable[[Events, Case, Request, Done, Gateway | None], None]


@dataclass(frozen=True)
class Policy:
    """How every request of a replay is answered."""

    name: str
    what: str
    cloud: Cloud
    begin: Begin

    def gateway(self, events: Events, case: Case, prefill_workers: int) -> Gateway | None:
        """The cluster of this policy."""
        if self.cloud is Cloud.NONE:
            return None
        if self.cloud is Cloud.AGGREGATED:
            return AggregatedGateway(events, case)
        return PdGateway(events, case, prefill_workers)


def _device_only(
    events: Events, case: Case, request: Request, done: Done, gateway: Gateway | None
) -> None:
    Phone(events, case, request, done, alone=True).begin()


def _whole(
    events: Events, case: Case, request: Request, done: Done, gateway: Gateway | None
) -> None:
    assert gateway is not None
    WholeAnswer(events, case, request, done, gateway).begin()


def _routed(
    events: Events, case: Case, request: Request, done: Done, gateway: Gateway | None
) -> None:
    assert gateway is not None
    if meets_ttft_alone(case, request, 0):
        Phone(events, case, request, done, alone=True).begin()
    else:
        RoutedPhone(events, case, request, done, gateway).begin()


def _split(quality: Callable[[Case], QualityTable], *, reuse: bool = False) -> Begin:
    def begin(
        events: Events, case: Case, request: Request, done: Done, gateway: Gateway | None
    ) -> None:
        assert gateway is not None
        cached = request.cached_tokens if reuse else 0
        if reuse and meets_ttft_alone(case, request, cached):
            Phone(events, case, request, done, alone=True, cached_tokens=cached).begin()
            return
        SplitPhone(
            events, case, request, done, gateway, cached_tokens=cached, quality=quality(case)
        ).begin()

    return begin


def meets_ttft_alone(case: Case, request: Request, cached_tokens: int) -> bool:
    """Whether the device need not ask the cloud, as the tuner decides it."""
    view = TuningView(
        device=case.device.profile,
        cloud=CloudSpeed(ttft_s=0.0, decode_s=0.0),
        prompt_tokens=request.prompt_tokens,
        cached_tokens=cached_tokens,
        max_tokens=request.max_tokens,
        targets=Targets(ttft_s=case.targets.ttft_s),
    )
    return decide(view).place is Place.DEVICE


def _measured(case: Case) -> QualityTable:
    return tuple(sorted(case.quality.items()))


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("device_only", "the device alone", Cloud.NONE, _device_only),
        Policy(
            "cloud_aggregated",
            "the cloud alone, prefill and decode in one batch (chunked prefill)",
            Cloud.AGGREGATED,
            _whole,
        ),
        Policy("cloud_pd", "the cloud alone, prefill and decode apart", Cloud.PD, _whole),
        Policy(
            "routed_migration",
            "whole requests routed, migrating in mid-answer (after DiSCo)",
            Cloud.PD,
            _routed,
        ),
        Policy("split", "split, whole prompts", Cloud.PD, _split(lambda case: ())),
        Policy(
            "split_refined",
            "split, the tuner's keep ratio under the quality floor",
            Cloud.PD,
            _split(_measured),
        ),
        Policy(
            "split_refined_r25",
            "split, keep ratio 0.25 whatever its quality",
            Cloud.PD,
            _split(lambda case: ((0.25, 1.0),)),
        ),
        Policy(
            "split_refined_reuse",
            "as split_refined, with the device's KV reused, and alone where that meets the TTFT",
            Cloud.PD,
            _split(_measured, reuse=True),
        ),
    )
}
