"""The small demos, run as their README files say but for the ports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demos.cluster import Cluster
from tests.processes import device_model

ROOT = Path(__file__).resolve().parents[2]
GRPC_README = (ROOT / "demos" / "grpc_client" / "README.md").read_text(encoding="utf-8")
BY_HAND = re.findall(r"^```sh run\n(.*?)^```$", GRPC_README, re.M | re.S)
QUESTION = "Write about the sea. " * 30


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=90
    )


def test_an_app_that_imports_the_sdk(cluster: Cluster) -> None:
    done = _run(sys.executable, "demos/edge/app.py", device_model(), cluster.address, QUESTION)
    assert done.returncode == 0, done.stderr
    *text, figures = done.stdout.splitlines()
    assert len(" ".join(text)) > 10
    found = re.fullmatch(r"(\d+) tokens from the cloud, (\d+) from this device", figures)
    assert found is not None
    assert sum(map(int, found.groups())) > 0


def test_an_app_tells_an_error_in_words() -> None:
    done = _run(sys.executable, "demos/edge/app.py", "nowhere", "127.0.0.1:9", QUESTION)
    assert done.returncode == 1
    assert "there is no nowhere" in done.stderr


def test_grpc_without_the_sdk(cluster: Cluster) -> None:
    done = _run(sys.executable, "demos/grpc_client/client.py", cluster.address, QUESTION)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny\n")
    assert len(done.stdout) > 20


def test_the_client_without_the_sdk_imports_nothing_else_of_segue() -> None:
    code = "import sys, demos.grpc_client.client; print(*sys.modules)"
    loaded = _run(sys.executable, "-c", code).stdout.split()
    ours = {name.split(".")[0] for name in loaded if name.startswith("segue_")}
    assert ours == {"segue_protocol"}
    assert not [name for name in loaded if re.match(r"segue_protocol\.(?!stubs)", name)]


@pytest.mark.parametrize("line", BY_HAND, ids=["GetModel", "Generate"])
def test_grpc_by_hand(cluster: Cluster, line: str) -> None:
    assert "127.0.0.1:8710" in line
    done = _run("sh", "-c", line.replace("127.0.0.1:8710", cluster.address))
    assert done.returncode == 0, done.stderr
    assert '"model": "tiny"' in done.stdout
    if "Generate" in line:
        assert '"finish"' in done.stdout
