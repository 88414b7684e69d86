"""One configuration file: groups and tenants, and everything else by flag and variable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segue_cloud.cluster.groups import Groups
from segue_cloud.config import (
    GroupConfig,
    KeepConfig,
    ServeConfig,
    TenantConfig,
    WorkerConfig,
    load,
    worker_flags,
)
from segue_cloud.security.tokens import TenantTokens
from segue_cloud.serve import configured_groups
from segue_protocol.errors import InvalidRequest

ROOT = Path(__file__).resolve().parents[2]

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
ttft_s = 0.5

[[groups.keep]]
ratio = 0.5
quality = 0.97

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
        GroupConfig(
            name="code",
            prompt_prefix="You are a compiler.",
            auto_ratio=True,
            ttft_s=0.5,
            keep=(KeepConfig(0.5, 0.97),),
        ),
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
        ("[[groups]]\n[[groups.keep]]\nration = 0.5", "ration"),
        ("port =", "cannot read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        load(ServeConfig, file=_write(tmp_path, text), environment={})


def test_a_worker_is_started_with_flags() -> None:
    flags = worker_flags(WorkerConfig(role="decode", group="chat"))
    assert flags[flags.index("--group") + 1] == "chat"


def test_the_configuration_that_operators_are_shown(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(.*?)^```$", page, re.M | re.S)
    tokens = tmp_path / "acme.tokens"
    tokens.write_text("0123456789abcdef0123456789abcdef\n")
    tokens.chmod(0o600)
    text = text.replace('"acme.tokens"', f'"{tokens}"')
    config = load(ServeConfig, file=_write(tmp_path, text), environment={})
    assert [group.name for group in configured_groups(config)] == ["chat", "rest"]
    assert Groups.from_config(config.groups, lambda prompt: list(prompt.encode())).names
    known = TenantTokens(config.tenants).tenant_of("Bearer 0123456789abcdef0123456789abcdef")
    assert known == "acme"
