"""The commands of ``segue``. What is slow to import is imported by the command that needs it."""

from __future__ import annotations

import typer

from segue_device.cli.ask import ask
from segue_device.cli.chat import chat
from segue_device.cli.check import check
from segue_device.cli.convert import convert
from segue_device.cli.profile import profile
from segue_device.cli.pull import index, pull
from segue_device.cli.serve import serve

app = typer.Typer(
    help="Answers that start in the cloud and go on on this device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for command in (ask, chat, check, convert, index, profile, pull, serve):
    app.command()(command)
