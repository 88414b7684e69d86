"""What is counted, recorded and logged of answers agrees with the answers themselves."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from segue_cloud.cluster.join import JoinHandler
from segue_cloud.cluster.local_link import LocalLink
from segue_cloud.cluster.members import Membership
from segue_cloud.engine.reference import ReferenceEngine
from segue_cloud.gateway.session import Session
from segue_cloud.watch.base import Watch, Watches
from segue_cloud.watch.events import EventLog
from segue_cloud.watch.gauges import Gauges
from segue_cloud.watch.logs import JsonFormatter, TextFormatter
from segue_cloud.watch.metrics import MAX_TENANTS, OTHER, Metrics, Tenants
from segue_cloud.watch.record import AnswerLog, AnswerRecord
from segue_device import Mode, Result, Sampling
from segue_protocol.errors import InvalidRequest, SegueError, Unavailable
from segue_protocol.version import protocol_version
from segue_protocol.wire import private, public
from tests.harness import Cloud, reference_cloud, reference_device
from tests.machinery.test_proofs import PROMPT as PROOF_PROMPT
from tests.machinery.test_proofs import Answer, start_message
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"A word that nobody may find again: Quetzalcoatlus. " * 4)
SAMPLING = Sampling(temperature=0.9, seed=1, logit_bias={256: -100.0})
ALL = {"group": "default", "tenant": ""}


class Records(Watch):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[AnswerRecord] = []
        self.appended_tokens = 0
        self.offers: list[str | None] = []
        self.refusals: list[str] = []
        self.departures: list[str] = []

    def left(self, member: object, reason: str) -> None:
        self.departures.append(reason)

    def offered(self, member: object, role: object, rejection: str | None) -> None:
        self.offers.append(rejection)

    def refused(self, error: SegueError) -> None:
        self.refusals.append(error.reason)

    def appended(self, session: Session, tokens: int, gap_s: float | None) -> None:
        self.appended_tokens += tokens

    def ended(self, session: Session, answer: AnswerRecord) -> None:
        self.answers.append(answer)


@dataclasses.dataclass
class Samples:
    """A scrape."""

    values: dict[tuple[str, frozenset[tuple[str, str]]], float]

    def __call__(self, name: str, **labels: str) -> float:
        return self.values[(f"segue_{name}", frozenset(labels.items()))]


def scrape(registry: CollectorRegistry) -> Samples:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return Samples(
        {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}
    )


def _run(metrics: Metrics, records: Records, *more: Watch) -> tuple[list[Result], Samples]:
    """Five answers of three kinds, two at a time with one prefill slot, then a scrape."""

    async def main() -> tuple[list[Result], Samples]:
        watch = Watches([metrics, records, *more])
        async with reference_cloud(watch=watch, slots=1) as cloud:
            metrics.registry.register(Gauges(cloud.gateway, metrics.tenants))

            async def ask(mode: Mode, max_tokens: int, credit: int | None) -> Result:
                async with reference_device(cloud) as device:
                    stream = device.client.stream(
                        prompt_token_ids=PROMPT,
                        sampling=SAMPLING,
                        max_tokens=max_tokens,
                        mode=mode,
                        credit_through=credit,
                    )
                    async with stream as answer:
                        return await answer.final()

            results = []
            for mode, credit in ((Mode.SPLIT, 12), (Mode.ONLY_IN_CLOUD, None)):
                results += await asyncio.gather(*(ask(mode, n, credit) for n in (40, 50)))
            results.append(await ask(Mode.ONLY_IN_CLOUD, 1, None))
            return results, scrape(metrics.registry)

    return run_virtual(main())


def test_the_metrics_agree_with_the_answers() -> None:
    metrics, records = Metrics(), Records()
    results, found = _run(metrics, records)
    accounts = [result.cloud for result in results if result.cloud is not None]
    assert len(accounts) == len(results) == len(records.answers) == 5

    made = sum(each.usage.cloud_tokens for each in accounts)
    assert found("cloud_tokens_total", **ALL) == made == records.appended_tokens
    assert found("inter_token_latency_seconds_count", **ALL) == made - len(results)
    assert found("time_to_first_token_seconds_count", **ALL) == len(results)
    assert found("e2e_request_latency_seconds_count", **ALL) == len(results)
    assert found("prompt_tokens_total", **ALL) == len(results) * len(PROMPT)
    takeovers = sum(result.takeover_index is not None for result in results)
    assert found("takeovers_total", **ALL) == takeovers == 2
    assert found("answers_total", **ALL, reason="taken_over") == takeovers
    assert found("answers_total", **ALL, reason="length") == 3
    slot_s = sum(each.timings.slot_s for each in accounts)
    assert found("cloud_slot_seconds_sum", **ALL) == pytest.approx(slot_s)
    for name in ("discarded_tokens", "recomputed_tokens", "prefix_mismatches", "lost_attempts"):
        assert found(f"{name}_total", **ALL) == 0

    first = [each.first_token_s for each in records.answers if each.first_token_s is not None]
    assert found("time_to_first_token_seconds_sum", **ALL) == pytest.approx(sum(first))
    assert found("credit_tokens_sum", **ALL) == sum(each.credit for each in records.answers)
    transfers = sum(each.timings.transfer_s > 0 for each in accounts)
    assert transfers < len(results), "an answer of one cloud token moves nothing"
    assert found("kv_transfer_seconds_count", group="default") == transfers
    assert found("kv_transfer_bytes_total", group="default") > 0
    assert found("num_requests_running", **ALL) == found("num_requests_waiting", **ALL) == 0
    for role in ("prefill", "decode"):
        assert found("workers", group="default", role=role) == 1


def test_the_records_are_those_of_the_answers() -> None:
    records = Records()
    results, _ = _run(Metrics(), records)
    by_id = {each.request_id: each for each in records.answers}
    assert len(by_id) == len(results)
    for result in results:
        assert result.cloud is not None
        found = next(
            each
            for each in records.answers
            if each.takeover_index == result.takeover_index
            and each.max_tokens in (1, 40, 50)
            and each.cloud_tokens == result.cloud.usage.cloud_tokens
            and each.slot_s == pytest.approx(result.cloud.timings.slot_s)
        )
        assert found.prompt_tokens == len(PROMPT)
        assert found.output_tokens == result.cloud.length
        assert found.first_token_s is not None
        assert found.last_token_s is not None
        assert 0 < found.first_token_s <= found.last_token_s <= found.total_s


def test_rejections_are_counted_by_reason() -> None:
    metrics, records = Metrics(), Records()
    _, found = _run(metrics, records)
    rejected = [each for each in records.offers if each is not None]
    assert rejected, "two answers at once and one slot"
    count = found("prefill_rejections_total", group="default", reason="NO_PREFILL_SLOT")
    assert count == len(rejected) == rejected.count("NO_PREFILL_SLOT")


def test_what_went_wrong_is_counted() -> None:
    """A transfer that broke, a writer that was shut out, a device that holds other tokens."""
    metrics, records = Metrics(), Records()

    async def main() -> None:
        async with reference_cloud(watch=Watches([metrics, records])) as cloud:
            original = cloud.prefill.slots.ticket_of

            def corrupting(slot, digest):  # type: ignore[no-untyped-def]
                ticket = original(slot, digest)
                slot.cells[0, 0, 3] += 1
                cloud.prefill.slots.ticket_of = original  # once
                return ticket

            cloud.prefill.slots.ticket_of = corrupting
            answer = Answer(cloud, start_message(24, 12))
            await answer.until(12)
            (session,) = cloud.gateway.sessions
            session.append(0, 12, [1, 2, 3], [-1.0] * 3)
            wrong = public.Takeover(index=7, prefix_hash=b"other tokens")
            await session.handle(public.GenerateRequest(takeover=wrong))
            await answer.done()

    run_virtual(main())
    found = scrape(metrics.registry)
    assert found("recomputed_tokens_total", **ALL) == len(PROOF_PROMPT) + 1
    assert found("lost_attempts_total", **ALL) == 1
    assert found("dropped_tokens_total", **ALL) == 3
    assert found("prefix_mismatches_total", **ALL) == 1
    assert found("cloud_tokens_total", **ALL) == 12
    assert found("discarded_tokens_total", **ALL) == 12 - 7
    (record,) = records.answers
    assert (record.takeover_index, record.output_tokens, record.dropped_tokens) == (7, 7, 3)
    assert record.reason == "taken_over"


def test_what_is_refused_at_the_door_is_counted() -> None:
    metrics, records = Metrics(), Records()

    async def main() -> None:
        async with reference_cloud(watch=Watches([metrics, records])) as cloud:
            with pytest.raises(SegueError):
                await _first_response(cloud, start_message(10_000, 4))

    run_virtual(main())
    assert records.refusals == ["CONTEXT_TOO_LONG"]
    assert scrape(metrics.registry)("requests_refused_total", reason="CONTEXT_TOO_LONG") == 1


async def _first_response(cloud: Cloud, start: public.GenerateRequest) -> public.GenerateResponse:
    async def requests() -> AsyncIterator[public.GenerateRequest]:
        yield start

    return await anext(cloud.gateway.generate(requests()))


def test_the_answer_log_holds_records_and_nothing_else(tmp_path: Path) -> None:
    path, records = tmp_path / "answers.jsonl", Records()
    with contextlib.closing(AnswerLog(path)) as answers:
        _run(Metrics(), records, answers)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [dataclasses.asdict(each) for each in records.answers]
    with pytest.raises(InvalidRequest, match="no/such"):
        AnswerLog(tmp_path / "no" / "such" / "directory")


@pytest.fixture
def captured() -> Iterator[list[logging.LogRecord]]:
    """Everything ours that is logged, at the lowest level."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("segue_cloud")
    logger.addHandler(handler)
    before, logger.level = logger.level, logging.DEBUG
    logger.setLevel(logging.DEBUG)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_logs_hold_no_prompt_and_no_answer(captured: list[logging.LogRecord]) -> None:
    results, _ = _run(Metrics(), Records(), EventLog())
    for formatter in (JsonFormatter(), TextFormatter()):
        lines = [formatter.format(record) for record in captured]
        assert sum("answer finished" in line for line in lines) == len(results)
        text = "\n".join(lines)
        assert "Quetzal" not in text
        long = [result for result in results if len(result.token_ids) > 20]
        assert len(long) == 4
        for ids in (PROMPT, *(result.token_ids for result in long)):
            assert ", ".join(map(str, ids[:3])) not in text
        assert not any(result.text[:8] in text for result in long)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("drained", "LEFT"),
        ("killed", "DISCONNECTED"),
        ("break", "DISCONNECTED"),
        ("freeze", "LEASE_EXPIRED"),
        ("gateway stops", "LEFT"),
    ],
)
def test_how_a_worker_left_is_known(end: str, reason: str) -> None:
    metrics, records = Metrics(), Records()
    engine = ReferenceEngine()

    async def requests() -> AsyncIterator[private.JoinRequest]:
        yield private.JoinRequest(
            register=private.Register(
                role=private.ROLE_PREFILL,
                group="chat",
                pid=4711,
                protocol=protocol_version(),
                identity=engine.identity.to_wire(),
                layout=engine.layout.to_wire(),
            )
        )
        yield private.JoinRequest(heartbeat=private.WorkerStatus(draining=end == "drained"))
        if end == "break":
            raise ConnectionResetError
        if end == "freeze":
            await asyncio.Event().wait()

    async def main() -> None:
        membership = Membership(["chat"], watch=Watches([metrics, records]))
        handler = JoinHandler(membership, lambda address: LocalLink())
        with contextlib.suppress(Unavailable):  # a worker that left gets no error
            async for _ in handler.join(requests()):
                assert len(membership.members) == 1
                if end == "gateway stops":
                    handler.close()

    run_virtual(main())
    assert records.departures == [reason]
    found = scrape(metrics.registry)
    assert found("worker_departures_total", group="chat", role="prefill", reason=reason) == 1


def test_exceptions_are_logged_without_their_words() -> None:
    try:
        raise ValueError("the prompt was: Quetzalcoatlus")
    except ValueError as error:
        record = logging.LogRecord(
            "segue_cloud", logging.ERROR, __file__, 1, "broken", (), (ValueError, error, None)
        )
        record.exc_info = (ValueError, error, error.__traceback__)
    entry = json.loads(JsonFormatter().format(record))
    assert entry["event"] == "broken"
    assert entry["exception"] == "ValueError"
    assert "test_exceptions_are_logged" in entry["stack"][0]
    assert "Quetzal" not in json.dumps(entry) + TextFormatter().format(record)


def test_tenants_are_boundedly_many() -> None:
    tenants = Tenants()
    labels = {tenants.label(f"tenant-{number}") for number in range(MAX_TENANTS + 50)}
    assert len(labels) == MAX_TENANTS + 1
    assert OTHER in labels
    assert tenants.label("tenant-0") == "tenant-0"
