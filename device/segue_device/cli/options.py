"""Arguments and options that several commands share, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

from segue_device.modes import Mode

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
Unpaced = Annotated[
    bool,
    typer.Option("--no-pacing", "--raw", help="Show tokens as they come, not at a steady pace."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
