"""The `segue-cloud` command. Options and defaults come from the config dataclasses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from segue_cloud.config import (
    Config,
    ControlConfig,
    ProfileConfig,
    ServeConfig,
    WorkerConfig,
    load,
    plain_fields,
)
from segue_protocol.errors import SegueError

Model = TypeVar("Model", ServeConfig, WorkerConfig, ProfileConfig)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; returns the exit status (2: bad usage or configuration)."""
    parser = argparse.ArgumentParser(prog="segue-cloud", description="The Segue P/D cluster")
    commands = parser.add_subparsers(dest="command", required=True)
    _add(commands, "serve", ServeConfig, "start a gateway and its workers on this machine")
    _add(commands, "worker", WorkerConfig, "start one worker and join a gateway")
    _add(commands, "profile", ProfileConfig, "measure how fast a model runs on this machine")
    _add(commands, "status", ControlConfig, "print who works and what was measured")
    drain = _add(commands, "drain", ControlConfig, "let a worker finish what runs, then leave")
    switch = _add(commands, "switch", ControlConfig, "let a worker come back in another role")
    for each in (drain, switch):
        each.add_argument("worker", help="its process id, or the beginning of its incarnation")
    switch.add_argument("role_to", metavar="role", choices=["prefill", "decode"])
    options = vars(parser.parse_args(arguments))
    command, file = options.pop("command"), options.pop("config")
    worker, role = options.pop("worker", ""), options.pop("role_to", None)
    try:
        if command in ("status", "drain", "switch"):
            from segue_cloud.cluster import control

            control_config = load(ControlConfig, file=file, flags=options)
            return control.main(control_config, command, worker, role)
        if command == "serve":
            from segue_cloud import serve

            return serve.main(_configure(ServeConfig, file, options))
        if command == "profile":
            from segue_cloud.profiles import command as profile

            return profile.main(_configure(ProfileConfig, file, options))
        from segue_cloud.worker import process

        return process.main(_configure(WorkerConfig, file, options))
    except SegueError as error:
        print(f"segue-cloud: {error.message}", file=sys.stderr)
        return 2


def _configure(kind: type[Model], file: Path | None, flags: dict[str, Any]) -> Model:
    config = load(kind, file=file, flags=flags)
    emulated = not isinstance(config, ProfileConfig) and config.engine == "emulated"
    if not config.model and not emulated:
        from segue_protocol.errors import InvalidRequest

        raise InvalidRequest("no model given; pass --model DIRECTORY of a Hugging Face model")
    return config


def _add(commands: Any, name: str, kind: type[Config], help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text, allow_abbrev=False)
    parser.add_argument("--config", type=Path, metavar="TOML")
    types = get_type_hints(kind)
    for field in plain_fields(kind):
        flag = f"--{field.name.replace('_', '-')}"
        if types[field.name] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(
                flag,
                type=types[field.name],
                default=None,
                metavar=types[field.name].__name__.upper(),
                help=f"default {field.default!r}",
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
