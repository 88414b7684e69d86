"""How a command ends that could not do what it was asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import typer

from segue_device.cli.terminal import Terminal
from segue_protocol.errors import SegueError

ERROR, INTERRUPTED = 1, 130

P = ParamSpec("P")


def report(message: str) -> None:
    """One line on stderr, whatever ends of lines the message has."""
    Terminal().note(f"error: {' '.join(message.split())}", style="red")


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors are one line and an exit status."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SegueError as error:
            report(error.message)
            raise typer.Exit(ERROR) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise  # whoever read our output has gone; typer ends quietly
        except OSError as error:
            report(str(error))
            raise typer.Exit(ERROR) from None

    return run
