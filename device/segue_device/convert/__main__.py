"""The command line of :mod:`segue_device.convert`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from segue_device.convert import convert_to_gguf, convert_to_onnx
from segue_device.convert.directory import PRECISIONS
from segue_protocol.errors import SegueError

_CONVERTERS = {"onnx": convert_to_onnx, "gguf": convert_to_gguf}


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert as `arguments` (None: those of the process) say; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m segue_device.convert",
        description="Make a model directory for the device from a Hugging Face one.",
    )
    parser.add_argument("hf_dir", type=Path, help="Hugging Face model directory")
    parser.add_argument("out_dir", type=Path, help="directory to make")
    parser.add_argument(
        "--format",
        choices=_CONVERTERS,
        default="onnx",
        help="onnx for ONNX Runtime (default), gguf for llama.cpp",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the weights")
    given = parser.parse_args(arguments)
    try:
        print(_CONVERTERS[given.format](given.hf_dir, given.out_dir, precision=given.precision))
    except SegueError as error:
        print(f"{error.reason}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
