"""`segue-cloud profile` on a real engine, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segue_cloud.cli import main
from segue_cloud.profiles.base import CloudProfile
from tests.unit.engine_models import write_model


def test_a_real_engine_is_measured_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(write_model(tmp_path / "small")), tmp_path / "profile.json"
    assert main(["profile", "--model", model, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    profile = CloudProfile.load(out)
    assert printed == json.loads(out.read_text())
    assert (profile.name, profile.dtype, profile.threads) == ("small", "float32", 1)
    assert profile.machine["torch"]
    assert len(profile.weights_digest) == 64
    for fit in (profile.prefill_fit, profile.decode_fit):
        assert fit is not None
        assert 0 <= fit.relative_rms <= fit.relative_max


def test_a_model_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile"]) == 2
    assert "no model given" in capsys.readouterr().err
