"""Arguments and options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segue_device.modes import Mode

if TYPE_CHECKING:
    from segue_device import Credentials

MAX_TOKENS = 512

Model = Annotated[
    str,
    typer.Argument(
        help="A converted model: its directory or .gguf file.", metavar="MODEL", show_default=False
    ),
]
Cloud = Annotated[
    str | None,
    typer.Option(
        "--cloud",
        metavar="ADDR",
        help="The cloud: host:port, ws://... or wss://... Without it the device answers alone.",
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Allow plain text to a cloud on another machine.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="The first line is the token that the cloud asks for."
    ),
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca", metavar="PEM", help="Who issued the cloud's certificate, if not the system knows."
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option("--certificate", metavar="PEM", help="This device's, for a cloud that asks."),
]
Key = Annotated[Path | None, typer.Option("--key", metavar="PEM", help="The key of --certificate.")]
ModeOption = Annotated[Mode, typer.Option("--mode", help="Who may write the answer.")]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=1, metavar="N", help="Longest answer, in tokens.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=2**64 - 1,
        metavar="N",
        help="Of the sampler; one is drawn without it.",
    ),
]
Temperature = Annotated[
    float,
    typer.Option("--temperature", min=0.0, metavar="T", help="0 takes the likeliest token."),
]
System = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="A system message to begin with.")
]
KeepRatio = Annotated[
    float | None,
    typer.Option(
        "--keep-ratio",
        min=0.01,
        max=1.0,
        metavar="R",
        help="Share of a long prompt to prefill here, chosen by the cloud; 1 is all of it.",
    ),
]
Unpaced = Annotated[
    bool,
    typer.Option("--no-pacing", "--raw", help="Show tokens as they come, not at a steady pace."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def credentials(
    token_file: Path | None, ca: Path | None, certificate: Path | None, key: Path | None
) -> Credentials:
    """What the four options say together."""
    from segue_device import Credentials

    return Credentials(
        token="" if token_file is None else first_line(token_file),
        ca_file=ca or "",
        certificate_file=certificate or "",
        key_file=key or "",
    )


def first_line(path: Path) -> str:
    """A secret is no command line's business: it would stand in every list of processes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[0].strip() if lines else ""
