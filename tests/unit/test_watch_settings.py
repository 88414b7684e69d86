"""What a gateway is told about watching, and how its status reads."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segue_cloud.cluster.members import Membership
from segue_cloud.cluster.show import lines
from segue_cloud.config import ServeConfig
from segue_cloud.gateway.gateway import Gateway
from segue_cloud.watch.logs import configure, event
from segue_cloud.watch.watching import Watching
from segue_protocol.errors import InvalidRequest, Unavailable
from segue_protocol.wire import private


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What was written to standard error; the process's logging is put back afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("segue_cloud")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield lambda: capsys.readouterr().err
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    for name in ("segue_cloud", "segue_protocol"):
        logging.getLogger(name).setLevel(levels[1])


def test_levels_and_forms(stderr: Callable[[], str]) -> None:
    configure("json", "info")
    logger = logging.getLogger("segue_cloud.somewhere")
    event(logger, logging.INFO, "worker joined", worker_pid=7)
    event(logger, logging.DEBUG, "below the level")
    logging.getLogger("elsewhere").info("other people's, below warnings")
    configure("text", "warning")
    event(logger, logging.INFO, "below the level now")
    event(logger, logging.WARNING, "worker lost", reason="a\nb")
    first, second = stderr().splitlines()
    entry = json.loads(first)
    assert (entry["event"], entry["worker_pid"], entry["level"]) == ("worker joined", 7, "info")
    assert second.endswith('Z warning worker lost reason="a\\nb"'), "one line, whatever is in it"


@pytest.mark.parametrize(("form", "level"), [("xml", "info"), ("json", "loud")])
def test_unknown_forms_and_levels_are_refused(form: str, level: str) -> None:
    with pytest.raises(InvalidRequest, match="expected one of"):
        configure(form, level)


def test_a_port_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="metrics_port is -2"):
        Watching(ServeConfig(metrics_port=-2))


def test_a_taken_port_is_named_and_none_is_none() -> None:
    async def main() -> None:
        gateway = Gateway(Membership())
        assert await Watching(ServeConfig(metrics_port=-1)).start(gateway) is None
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(Unavailable, match=f"127.0.0.1:{port}.*metrics_port"):
                await Watching(ServeConfig(metrics_port=port)).start(gateway)

    asyncio.run(main())


def test_two_gateways_in_one_process_count_apart(tmp_path: Path) -> None:
    async def main() -> None:
        gateway = Gateway(Membership())
        pair = [Watching(ServeConfig(metrics_port=0)) for _ in range(2)]
        ports = [await each.start(gateway) for each in pair]
        assert len(set(ports)) == 2
        for each in pair:
            await each.stop()

    asyncio.run(main())


def test_a_status_shows_what_was_measured_and_what_is_wrong() -> None:
    status = private.ClusterStatus(
        gateway_pid=1,
        workers=[
            private.WorkerStatus(
                role=private.ROLE_DECODE,
                group="chat",
                pid=77,
                incarnation=b"\xab" * 16,
                draining=True,
                pages=8,
                pages_used=3,
                integrity_error="one page is owned twice",
            ),
            private.WorkerStatus(
                role=private.ROLE_PREFILL, pid=78, unready_reason="waits for a decode worker"
            ),
        ],
        groups=[
            private.GroupStatus(
                name="chat",
                prefill_workers=1,
                decode_workers=3,
                prefill_s=0.25,
                balanced_prefill_workers=2.4,
                rejected_share=0.125,
            )
        ],
    )
    shown = lines(status)
    worker = next(line for line in shown if line.startswith("decode"))
    assert worker.split()[:7] == ["decode", "chat", "77", "abababab", "draining", "0/0", "3/8"]
    group = next(line for line in shown if line.startswith("chat"))
    assert group.split() == ["chat", "1", "2.40", "3", "0.250", "s", "-", "0.0", "0.00", "12.5%"]
    assert next(line for line in shown if line.startswith("prefill ")).count("not ready") == 1
    assert "worker 78 is not ready: waits for a decode worker" in shown
    assert "worker 77: counts do not add up: one page is owned twice" in shown
    assert lines(private.ClusterStatus(gateway_pid=1))[-1] == "no worker answers"
