"""The ``segue`` command (extra ``cli``)."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that `arguments` (None: those of the process) name, and exit.

    The status is 0; 1 for an error, told in one line; 2 for a usage error or
    without the extra; 130 after Ctrl-C.
    """
    try:
        from segue_device.cli.app import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("rich", "typer"):
            raise
        print(f'error: segue needs {package}; pip install "segue-device[cli]"', file=sys.stderr)
        sys.exit(2)
    app(arguments, prog_name="segue")
