"""What an app loads with `import segue_device`, seen in interpreters of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# What the core must do without until it is used, and what it never needs.
HEAVY = frozenset(
    {
        "grpc",
        "jinja2",
        "llama_cpp",
        "numpy",
        "onnxruntime",
        "tokenizers",
        "torch",
        "transformers",
        "websockets",
    }
)


def heavy_modules_after(code: str) -> set[str]:
    """Run `code` in a fresh interpreter; which of HEAVY it has loaded then."""
    report = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return HEAVY & set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import segue_protocol.frames, segue_protocol.identity, segue_protocol.tokenizer",
        "from segue_device import *",
        "import segue_device.engines, segue_device.transports",
        "from segue_device import AsyncClient; AsyncClient(cloud='127.0.0.1:8710')",
        "from segue_device import AsyncClient; AsyncClient(cloud='wss://cloud.example')",
        "from segue_device import AsyncClient; AsyncClient(model='models/any')",
        "from segue_device import Client\nwith Client(cloud='ws://127.0.0.1:8711'): pass",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_used(code: str) -> None:
    assert heavy_modules_after(code) == set()


def test_what_is_used_is_loaded() -> None:
    """The other way round, or the test above could not fail."""
    assert heavy_modules_after("from segue_device.engines import OnnxEngine") == {"numpy"}
    used = "from segue_device.transports import transport_for; transport_for('ws://127.0.0.1:1')"
    assert heavy_modules_after(used) == {"websockets"}


def test_the_engines_that_are_imported_late_are_listed() -> None:
    import segue_device.engines as engines

    assert engines.__all__ == sorted(engines.__all__)
    assert set(engines.__all__) <= set(dir(engines))
    for name in engines.__all__:
        assert getattr(engines, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'NoEngine'"):
        engines.NoEngine  # type: ignore[attr-defined]  # noqa: B018
