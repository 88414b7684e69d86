"""One configuration file: groups and tenants, and everything else by flag and variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue_cloud.config import (
    GroupConfig,
    ServeConfig,
    TenantConfig,
    WorkerConfig,
    load,
    worker_flags,
)
from segue_protocol.errors import InvalidRequest

FILE = """
model = "models/tiny"
first_token_s = 5

[[groups]]
name = "chat"
labels = ["chat", "voice"]
decode_workers = 2

[[groups]]
name = "code"
prompt_prefix = "You are a compiler."
auto_ratio = true

[[tenants]]
name = "acme"
token_file = "acme.tokens"
max_requests = 8
"""


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cloud.toml"
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    config = load(ServeConfig, file=_write(tmp_path, FILE), environment={"SEGUE_PORT": "99"})
    assert config.groups == (
        GroupConfig(name="chat", labels=("chat", "voice"), decode_workers=2),
        GroupConfig(name="code", prompt_prefix="You are a compiler.", auto_ratio=True),
    )
    assert config.tenants == (TenantConfig(name="acme", token_file="acme.tokens", max_requests=8),)
    assert (config.first_token_s, config.port) == (5.0, 99)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("modell = 'x'", "modell"),
        ("port = 'x'", "port"),
        ("[[groups]]\nlable = ['x']", "lable"),
        ("[[groups]]\nlabels = 'x'", "labels"),
        ("[[groups]]\nlabels = [1]", r"labels\[0\]"),
        ("[[groups]]\nname = 1", "name"),
        ("groups = 3", "groups"),
        ("port =", "cannot read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        load(ServeConfig, file=_write(tmp_path, text), environment={})


def test_a_worker_is_started_with_flags() -> None:
    flags = worker_flags(WorkerConfig(role="decode", group="chat"))
    assert flags[flags.index("--group") + 1] == "chat"
