"""``segue pull`` and ``segue index``: models from a web server or another directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segue_device.cli.failures import reports_errors
from segue_device.cli.terminal import Terminal

Source = Annotated[
    str,
    typer.Argument(
        help="https:// address of a file or of a directory's segue_files.json, or a local path.",
        metavar="URL|PATH",
        show_default=False,
    ),
]
Sha256 = Annotated[
    str | None,
    typer.Option("--sha256", metavar="HEX", help="Of the file, or of segue_files.json."),
]
To = Annotated[Path, typer.Option("--to", metavar="DIR", help="The directory to put it in.")]
Force = Annotated[bool, typer.Option("--force", help="Replace something else of that name.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Allow http:// addresses of other machines.")
]


@reports_errors
def pull(
    source: Source,
    to: To = Path("."),
    sha256: Sha256 = None,
    force: Force = False,
    insecure: Insecure = False,
) -> None:
    """Bring a model here: resumed, verified, whole or not at all."""
    from segue_device.pull import pull as bring

    terminal = Terminal()
    with terminal.progress(in_bytes=True) as advance:
        path = bring(source, to, sha256=sha256, force=force, insecure=insecure, on_progress=advance)
    terminal.line(str(path))


@reports_errors
def index(
    directory: Annotated[Path, typer.Argument(help="A model directory.", show_default=False)],
) -> None:
    """Write segue_files.json, so that any web server can offer a directory to segue pull."""
    from segue_device.pull import write_listing

    terminal = Terminal()
    with terminal.working(f"reading {directory}"):
        path = write_listing(directory)
    terminal.line(str(path))
