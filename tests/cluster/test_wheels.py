"""What an app installs: two wheels without compiler and gRPC, and an answer over WebSocket."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from demos.cluster import Cluster
from tests.processes import ROOT, device_model

APP = ROOT / "tests" / "cluster" / "device_alone.py"
# pip asks the package index for the build's tools and the plain dependencies.
PIP_TIMEOUT_S = 240
pytestmark = pytest.mark.timeout(3 * PIP_TIMEOUT_S)


def _run(python: str | Path, *arguments: str | Path) -> str:
    # -I: neither the working directory nor PYTHONPATH may help.
    command = [python, "-I", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from copies, so that no build folder is left among the sources or goes into one."""
    folder = tmp_path_factory.mktemp("wheels")
    sources = tmp_path_factory.mktemp("sources")
    for name in ("protocol", "device"):
        ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
        _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, sources / name)
    return folder


def test_the_core_alone_answers_over_websocket(
    wheels: Path, cluster: Cluster, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    # --only-binary: nothing that would need a compiler.
    _run(python, "-m", "pip", "install", "-q", "--only-binary", ":all:", *wheels.glob("*.whl"))
    told = json.loads(_run(python, APP, cluster.websocket_url, device_model()))
    assert told["importable"] == []
    assert not {"grpc", "numpy", "websockets.server"} & set(told["modules"])
    assert told["cloud_tokens"] == 20
    assert told["text"]
    assert "segue-device[grpc]" in told["without_grpc"]
    assert "segue-device[onnx]" in told["without_engine"]


def test_the_wheels_hold_the_packages_and_nothing_else(wheels: Path) -> None:
    found = {}
    for wheel in wheels.glob("*.whl"):
        package = wheel.name.split("-")[0]
        assert wheel.name.endswith("-py3-none-any.whl")
        names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]
        found[package] = {str(name) for name in names if "dist-info" not in name.parts[0]}
    assert {name.split("/")[0] for names in found.values() for name in names} == set(found)
    for package, folder in (("segue_protocol", "protocol"), ("segue_device", "device")):
        source = ROOT / folder / package
        modules = {str(path.relative_to(source.parent)) for path in source.rglob("*.py")}
        assert {name for name in found[package] if name.endswith(".py")} == modules
        assert f"{package}/py.typed" in found[package]
