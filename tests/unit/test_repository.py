"""The house rules that a command can see."""

from __future__ import annotations

import ast
import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUBS = ROOT / "protocol" / "segue_protocol" / "stubs"


def test_committed_stubs_are_those_of_the_proto_files(tmp_path: Path) -> None:
    assert shutil.which("make")
    subprocess.run(["make", "-s", "proto", f"STUBS={tmp_path}"], cwd=ROOT, check=True, timeout=100)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    assert len(made) >= 6
    _, different, missing = filecmp.cmpfiles(
        tmp_path, STUBS, [str(path) for path in made], shallow=False
    )
    assert not different, "run `make proto` and commit"
    assert not missing, "run `make proto` and commit"


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("protocol/segue_protocol", {"segue_device", "segue_cloud"}),
        ("device/segue_device", {"segue_cloud"}),
        ("cloud/segue_cloud", {"segue_device"}),
    ],
)
def test_arrows_run_to_the_protocol_only(package: str, forbidden: set[str]) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found = {name.split(".")[0] for name in names} & forbidden
            assert not found, f"{path} imports {found}"


def _runs_what_it_reads(node: ast.AST) -> str:
    """The name of a way to read data that can run code in it; empty for anything else."""
    named = ""
    if isinstance(node, ast.Import):
        named = " ".join(alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        named = (node.module or "").split(".")[0]
    found = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    if found & set(named.split()):
        return named
    if isinstance(node, ast.Call):
        options = {each.arg: ast.unparse(each.value) for each in node.keywords}
        function = ast.unparse(node.func)
        if options.get("allow_pickle", "False") != "False":
            return function
        if function == "torch.load" and options.get("weights_only") != "True":
            return function
        if function in ("eval", "exec"):
            return function
    return ""


@pytest.mark.parametrize(
    "package", ["protocol/segue_protocol", "device/segue_device", "cloud/segue_cloud"]
)
def test_no_data_can_run_code(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = _runs_what_it_reads(node)
            assert not found, f"{path}:{getattr(node, 'lineno', 0)} uses {found}"


def test_what_can_run_code_is_seen() -> None:
    """Or the test above could not fail."""
    for line in (
        "import pickle",
        "import os, marshal",
        "from shelve import open",
        "import torch; torch.load('x')",
        "np.load('x', allow_pickle=True)",
    ):
        assert any(_runs_what_it_reads(node) for node in ast.walk(ast.parse(line))), line


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_server_without_its_extra_names_it(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from segue_protocol.errors import Unsupported\n"
        "try:\n    import segue_device.server\n"
        "except Unsupported as error:\n    print(error.message)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert package in out.stdout
    assert 'pip install "segue-device[server]"' in out.stdout


def test_public_names_are_sorted() -> None:
    import segue_device

    assert segue_device.__all__ == sorted(segue_device.__all__)
    for name in segue_device.__all__:
        assert getattr(segue_device, name) is not None
