"""Metrics, logs and answer records of real processes, against the answers they are about."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from demos.cluster import running_cluster
from segue_device import DeviceProfile, Result, Sampling
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.wire import public
from tests.processes import TINY, connected, is_idle, wait_for

PROMPT = "Tell me what Quetzalcoatlus saw on the way to the harbour. " * 20
SAMPLING = Sampling(temperature=0.8, top_k=40, seed=5, logit_bias={2: -100.0})
# So slow that the cloud's part is complete before it, however busy this machine is.
SLOW = DeviceProfile(0.0, 1 / 100, 0.0, 0.01, 0.02)


@dataclass(frozen=True)
class Watched:
    """What was left after a run: the answers, the last scrape and both files."""

    results: list[Result]
    samples: dict[str, float]
    log: str
    records: list[dict[str, Any]]
    missing: int


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    directory = tmp_path_factory.mktemp("watched")
    answers, log = directory / "answers.jsonl", directory / "log.jsonl"
    flags = ("--log-format", "json", "--answer-log", str(answers))
    with log.open("w") as file, running_cluster(TINY, *flags, log=file) as cluster:
        assert cluster.metrics_url is not None

        async def run() -> list[Result]:
            async with connected(cluster, profile=SLOW) as client:
                results = []
                for mode in ("split", "only_in_cloud", "split"):
                    stream = client.stream(
                        prompt=PROMPT,
                        sampling=SAMPLING,
                        max_tokens=40,
                        mode=mode,
                        credit_through=15 if mode == "split" else None,
                    )
                    async with stream as answer:
                        results.append(await answer.final())
            await wait_for(cluster, is_idle)
            return results

        results = asyncio.run(run())
        samples = _scrape(cluster.metrics_url)
        missing = _status_of(cluster.metrics_url.replace("/metrics", "/nothing"))
    return Watched(
        results,
        samples,
        log.read_text(),
        [json.loads(line) for line in answers.read_text().splitlines()],
        missing,
    )


def _scrape(url: str) -> dict[str, float]:
    """Sums over all labels."""
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        text = response.read().decode()
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name] = samples.get(sample.name, 0.0) + sample.value
    return samples


def _status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            status: int = response.status
    except urllib.error.HTTPError as error:
        status = error.code
        error.close()
    return status


def test_the_scrape_agrees_with_the_answers(watched: Watched) -> None:
    accounts = [result.cloud for result in watched.results]
    usages = [account.usage for account in accounts if account is not None]
    assert len(usages) == 3
    made = sum(usage.cloud_tokens for usage in usages)
    found = watched.samples
    assert found["segue_cloud_tokens_total"] == made
    assert found["segue_inter_token_latency_seconds_count"] == made - 3
    assert found["segue_time_to_first_token_seconds_count"] == 3
    taken_over = [a for a in accounts if a and a.reason == public.FINISH_REASON_TAKEN_OVER]
    assert found["segue_takeovers_total"] == len(taken_over)
    assert found["segue_cloud_slot_seconds_sum"] == pytest.approx(
        sum(account.timings.slot_s for account in accounts if account is not None)
    )
    assert found["segue_workers"] == 2
    assert found["segue_num_requests_running"] == found["segue_num_requests_waiting"] == 0
    assert found["segue_kv_transfer_bytes_total"] > 0
    assert watched.missing == 404


def test_the_records_agree_with_the_scrape_and_the_log(watched: Watched) -> None:
    found, records = watched.samples, watched.records
    assert len(records) == 3
    for total, field in (
        ("segue_cloud_tokens_total", "cloud_tokens"),
        ("segue_time_to_first_token_seconds_sum", "first_token_s"),
        ("segue_e2e_request_latency_seconds_sum", "total_s"),
        ("segue_kv_transfer_seconds_sum", "transfer_s"),
        ("segue_credit_tokens_sum", "credit"),
    ):
        assert found[total] == pytest.approx(sum(record[field] for record in records))
    takeovers = {result.takeover_index for result in watched.results}
    assert {record["takeover_index"] for record in records} <= takeovers | {None}

    entries = [json.loads(line) for line in watched.log.splitlines()]
    events = [entry["event"] for entry in entries]
    finished = [entry for entry in entries if entry["event"] == "answer finished"]
    assert [{name: entry[name] for name in records[0]} for entry in finished] == records
    assert events.count("worker joined") == events.count("worker started") == 2
    assert events[0] == "gateway started"
    assert "gateway stops" in events
    assert "worker lost" not in events


def test_no_log_and_no_record_holds_what_was_said(watched: Watched) -> None:
    tokenizer = ChatTokenizer.from_directory(TINY)
    written = watched.log + json.dumps(watched.records)
    assert "Quetzal" not in written
    assert "harbour" not in written
    for result in watched.results:
        assert result.text[:12] not in written
        assert ", ".join(map(str, result.token_ids[:4])) not in written
    assert ", ".join(map(str, tokenizer.encode(PROMPT)[:4])) not in written
