"""Prometheus metrics of one gateway, in base units.

Labels are group, tenant, role and reason codes; never an id, never a text.
Durations are of the gateway's clock; what only the device knows (takeover gap,
stalls, its own tokens) is in the device's timings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from segue_cloud.watch.base import Watch
from segue_protocol.errors import SegueError
from segue_protocol.wire import private

if TYPE_CHECKING:
    from segue_cloud.cluster.members import Member
    from segue_cloud.gateway.session import Session
    from segue_cloud.watch.record import AnswerRecord

FIRST_TOKEN_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0),
)
TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
ANSWER_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
TRANSFER_BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHARE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
CREDIT_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

# Tenants with series of their own; further ones share those of OTHER.
MAX_TENANTS = 100
OTHER = "other"


class Tenants:
    """Tenant names as label values, boundedly many."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def label(self, tenant: str) -> str:
        """The tenant, or OTHER when it is one too many."""
        if tenant in self._known:
            return tenant
        if len(self._known) >= MAX_TENANTS:
            return OTHER
        self._known.add(tenant)
        return tenant


class Metrics(Watch):
    """Counts into a registry of its own, so that a process can hold several gateways."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tenants = Tenants()
        ProcessCollector(registry=self.registry)
        # Of answers: by group and tenant.
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Start to first token", FIRST_TOKEN_BUCKETS_S
        )
        self._gap = self._histogram(
            "inter_token_latency_seconds", "Every gap between two tokens", TOKEN_BUCKETS_S
        )
        self._gaps: dict[tuple[str, str], Histogram] = {}
        self._per_token = self._histogram(
            "request_time_per_output_token_seconds", "Mean gap of one answer", TOKEN_BUCKETS_S
        )
        self._total = self._histogram(
            "e2e_request_latency_seconds", "Start to the end of the cloud's part", ANSWER_BUCKETS_S
        )
        self._slot = self._histogram(
            "cloud_slot_seconds", "Time of one answer in the decode batch", ANSWER_BUCKETS_S
        )
        self._credit = self._histogram(
            "credit_tokens", "Credit of one answer at its end", CREDIT_BUCKETS
        )
        self._kept_share = self._histogram(
            "refinement_kept_ratio", "Share of a refined prompt that is kept", SHARE_BUCKETS
        )
        self._list_share = self._histogram(
            "refinement_list_ratio", "When it was refined, as a share of its prefill", SHARE_BUCKETS
        )
        self._answers = self._counter("answers_total", "Answers that ended", "reason")
        self._prompt = self._counter("prompt_tokens_total", "Prompt tokens")
        self._made = self._counter("cloud_tokens_total", "Output tokens made by the cloud")
        self._discarded = self._counter(
            "discarded_tokens_total", "Of the cloud's tokens, those behind the takeover index"
        )
        self._recomputed = self._counter(
            "recomputed_tokens_total", "Tokens prefilled again after an eviction or a loss"
        )
        self._dropped = self._counter(
            "dropped_tokens_total", "Tokens of writers that were shut out"
        )
        self._takeovers = self._counter("takeovers_total", "Answers taken over by the device")
        self._mismatches = self._counter(
            "prefix_mismatches_total", "Takeovers where device and cloud held different tokens"
        )
        self._lost = self._counter("lost_attempts_total", "Attempts that lost their worker")
        # Of workers: by group.
        self._transfer = Histogram(
            "segue_kv_transfer_seconds",
            "Pull of one request's KV",
            ["group"],
            buckets=TRANSFER_BUCKETS_S,
            registry=self.registry,
        )
        self._transfer_bytes = self._plain("kv_transfer_bytes_total", "KV pulled", "group")
        self._transfer_failures = self._plain(
            "kv_transfer_failures_total", "Pulls that failed", "group", "reason"
        )
        self._rejections = {
            private.ROLE_PREFILL: self._plain(
                "prefill_rejections_total", "Offers rejected by prefill workers", "group", "reason"
            ),
            private.ROLE_DECODE: self._plain(
                "decode_rejections_total", "Offers rejected by decode workers", "group", "reason"
            ),
        }
        self._departures = self._plain(
            "worker_departures_total",
            "Workers that left (reason LEFT) or were lost",
            *("group", "role", "reason"),
        )
        self._refused = self._plain(
            "requests_refused_total", "Requests turned away at the door", "reason"
        )

    # ---- what is watched

    def left(self, member: Member, reason: str) -> None:
        self._departures.labels(member.group, member.role_name, reason).inc()

    def offered(self, member: Member, role: private.Role, rejection: str | None) -> None:
        if rejection is not None:
            self._rejections[role].labels(member.group, rejection).inc()

    def refused(self, error: SegueError) -> None:
        self._refused.labels(error.reason).inc()

    def appended(self, session: Session, tokens: int, gap_s: float | None) -> None:
        of = self._of(session)
        gap = self._gaps.get(of)
        if gap is None:  # looking up labels costs more than counting
            gap = self._gaps[of] = self._gap.labels(*of)
        if gap_s is not None:
            gap.observe(gap_s)
        for _ in range(tokens - 1):  # came together
            gap.observe(0.0)

    def dropped(self, session: Session, tokens: int) -> None:
        self._dropped.labels(*self._of(session)).inc(tokens)

    def transferred(self, session: Session, transfer_s: float, transfer_bytes: int) -> None:
        self._transfer.labels(session.scope.group).observe(transfer_s)
        self._transfer_bytes.labels(session.scope.group).inc(transfer_bytes)

    def transfer_failed(self, member: Member, reason: str) -> None:
        self._transfer_failures.labels(member.group, reason).inc()

    def ended(self, session: Session, answer: AnswerRecord) -> None:
        of = self._of(session)
        self._answers.labels(*of, answer.reason).inc()
        self._total.labels(*of).observe(answer.total_s)
        self._slot.labels(*of).observe(answer.slot_s)
        self._credit.labels(*of).observe(answer.credit)
        if answer.first_token_s is not None and answer.last_token_s is not None:
            self._first_token.labels(*of).observe(answer.first_token_s)
            if answer.cloud_tokens > 1:
                streamed_s = answer.last_token_s - answer.first_token_s
                self._per_token.labels(*of).observe(streamed_s / (answer.cloud_tokens - 1))
        if answer.kept_tokens is not None and answer.prefill_s > 0:
            self._kept_share.labels(*of).observe(answer.kept_tokens / answer.prompt_tokens)
            self._list_share.labels(*of).observe(answer.list_s / answer.prefill_s)
        for counter, amount in (
            (self._prompt, answer.prompt_tokens),
            (self._made, answer.cloud_tokens),
            (self._discarded, answer.discarded_tokens),
            (self._recomputed, answer.recomputed_tokens),
            (self._takeovers, answer.takeover_index is not None),
            (self._mismatches, answer.prefix_mismatches),
            (self._lost, answer.lost_workers),
        ):
            counter.labels(*of).inc(amount)

    # ---- helpers

    def _of(self, session: Session) -> tuple[str, str]:
        return session.scope.group, self.tenants.label(session.scope.tenant)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"segue_{name}", text, ["group", "tenant"], buckets=buckets, registry=self.registry
        )

    def _counter(self, name: str, text: str, *more: str) -> Counter:
        return self._plain(name, text, "group", "tenant", *more)

    def _plain(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"segue_{name}", text, labels, registry=self.registry)
