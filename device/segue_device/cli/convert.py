"""``segue convert``: a model for the device from a Hugging Face one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segue_device.cli.failures import reports_errors
from segue_device.cli.terminal import Terminal

Precision = Literal["fp32", "int8", "int4"]

HfDir = Annotated[Path, typer.Argument(help="A Hugging Face model directory.", show_default=False)]
OutDir = Annotated[Path, typer.Argument(help="The directory to make.", show_default=False)]
Format = Annotated[
    Literal["onnx", "gguf"],
    typer.Option("--format", help="onnx for ONNX Runtime, gguf for llama.cpp."),
]


@reports_errors
def convert(
    hf_dir: HfDir,
    out_dir: OutDir,
    form: Format = "onnx",
    precision: Annotated[Precision, typer.Option(help="Of the weights.")] = "fp32",
) -> None:
    """Make a model directory for the device; nothing is done when it is up to date."""
    from segue_device.convert import convert_to_gguf, convert_to_onnx

    terminal = Terminal()
    convert_to = {"onnx": convert_to_onnx, "gguf": convert_to_gguf}[form]
    with terminal.working(f"converting {hf_dir} to {form}, {precision}"):
        made = convert_to(hf_dir, out_dir, precision=precision)
    terminal.line(str(made))
