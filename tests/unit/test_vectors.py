"""The vectors that other SDKs are held to are those of this code."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_committed_vectors_are_what_the_script_makes() -> None:
    made = runpy.run_path(str(ROOT / "device/tools/make_vectors.py"))["render"]()
    committed = (ROOT / "device/vectors/handover.json").read_text(encoding="utf-8")
    assert made == committed, "run python device/tools/make_vectors.py and commit"
