"""What is true now, read when somebody asks: sessions, members and their last heartbeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from segue_cloud.gateway.state import RequestState
from segue_cloud.watch.metrics import Tenants
from segue_protocol.wire import private

if TYPE_CHECKING:
    from segue_cloud.cluster.members import Member
    from segue_cloud.gateway.gateway import Gateway


class Gauges(Collector):
    """A view of a gateway. It keeps only which series there were: they go to 0, not away."""

    def __init__(self, gateway: Gateway, tenants: Tenants) -> None:
        self._gateway = gateway
        self._tenants = tenants
        self._seen: set[tuple[str, str]] = set()

    def collect(self) -> Iterator[Metric]:
        """Called on the event loop, for every scrape."""
        yield from self._requests()
        members = self._gateway.membership.members
        yield self._workers(members)
        yield self._pages(members)
        yield self._slots(members)

    def _requests(self) -> Iterator[Metric]:
        running, waiting = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for session in self._gateway.sessions:
            of = session.scope.group, self._tenants.label(session.scope.tenant)
            self._seen.add(of)
            if session.state is RequestState.WAITING:
                waiting[of] += 1
            elif not session.finished:
                running[of] += 1
        for name, text, counts in (
            ("num_requests_running", "Requests that a worker holds", running),
            ("num_requests_waiting", "Requests that wait for a worker", waiting),
        ):
            gauge = GaugeMetricFamily(f"segue_{name}", text, labels=["group", "tenant"])
            for of in sorted(self._seen):
                gauge.add_metric(of, counts[of])
            yield gauge

    def _workers(self, members: tuple[Member, ...]) -> Metric:
        gauge = GaugeMetricFamily("segue_workers", "Members", labels=["group", "role"])
        for (group, role), number in Counter(_kind(member) for member in members).items():
            gauge.add_metric((group, role), number)
        return gauge

    def _pages(self, members: tuple[Member, ...]) -> Metric:
        gauge = GaugeMetricFamily(
            "segue_kv_cache_usage_perc", "Used share of the KV pages, 0 to 1", labels=["group"]
        )
        used, there = Counter[str](), Counter[str]()
        for member in members:
            if member.serves(private.ROLE_DECODE):
                used[member.group] += member.status.pages_used
                there[member.group] += member.status.pages
        for group, pages in there.items():
            gauge.add_metric((group,), used[group] / pages if pages else 0.0)
        return gauge

    def _slots(self, members: tuple[Member, ...]) -> Metric:
        gauge = GaugeMetricFamily(
            "segue_slots_used",
            "Prefill slots, or places in decode batches, that are taken",
            labels=["group", "role"],
        )
        used = Counter[tuple[str, str]]()
        for member in members:
            used[_kind(member)] += member.status.slots_used
        for kind, number in used.items():
            gauge.add_metric(kind, number)
        return gauge


def _kind(member: Member) -> tuple[str, str]:
    return member.group, member.role_name
