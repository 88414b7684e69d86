"""An answer that may only run on the device touches no network: at import, in use, at exit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.recorded_answer import open_network_sockets
from tests.processes import device_model

TRANSPORTS = {"segue_device.transports.grpc", "segue_device.transports.websocket"}


def _recorded(
    tmp_path: Path, cloud: str, mode: str, **environment: str
) -> tuple[list[list[str]], dict[str, Any]]:
    """The network calls of one answer, and what its interpreter told at its end."""
    record = tmp_path / "record"
    arguments = [str(record), cloud, str(device_model()), mode]
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.recorded_answer", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        env=os.environ | environment,
    )
    calls = [json.loads(line) for line in record.read_text().splitlines()]
    return calls, json.loads(done.stdout)


@pytest.mark.parametrize("cloud", ["wss://cloud.example", "cloud.example:443"])
@pytest.mark.parametrize(
    ("mode", "environment"),
    [("only_on_device", {}), ("prefer_on_device", {}), ("split", {"SEGUE_NO_CLOUD": "1"})],
)
def test_no_name_is_looked_up_and_nothing_is_sent(
    tmp_path: Path, cloud: str, mode: str, environment: dict[str, str]
) -> None:
    calls, told = _recorded(tmp_path, cloud, mode, **environment)
    assert calls == []
    assert told["sockets"] == []
    assert told["device_tokens"] > 0
    assert not TRANSPORTS & set(told["modules"])
    assert "onnxruntime" in told["modules"]
    assert told["telemetry_off"]


def test_the_record_shows_a_cloud_that_is_tried(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        calls, told = _recorded(tmp_path, f"ws://localhost:{port}", "split")
    assert ["socket.connect", str(("127.0.0.1", port))] in calls
    assert "socket.getaddrinfo" in {call[0] for call in calls}
    assert told["device_tokens"] > 0


def test_open_sockets_are_found() -> None:
    before = set(open_network_sockets())
    with socket.socket(type=socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        assert len(set(open_network_sockets()) - before) == 1
