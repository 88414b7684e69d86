"""The README's examples, run as they stand but for the ports."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demos.cluster import Cluster
from tests.processes import device_model
from tests.segue_command import serving

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python run\n(.*?)^```$", README, re.M | re.S)


def _run(example: str, **addresses: str) -> str:
    for written, real in addresses.items():
        assert ADDRESSES[written] in example
        example = example.replace(ADDRESSES[written], real)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ADDRESSES = {"cloud": "127.0.0.1:8710", "server": "http://127.0.0.1:8080/v1"}


def test_there_are_three() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("example", EXAMPLES[:2], ids=["sync", "async"])
def test_an_app(cluster: Cluster, example: str) -> None:
    assert len(_run(example, cloud=cluster.address)) > 10


def test_an_app_of_the_openai_package(cluster: Cluster) -> None:
    with serving(device_model(), "--cloud", cluster.address) as (_, url):
        assert len(_run(EXAMPLES[2], server=url)) > 10
