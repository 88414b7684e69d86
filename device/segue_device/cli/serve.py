"""``segue serve``: OpenAI's interface on this device, for programs that speak it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from segue_device.cli import options
from segue_device.cli.failures import reports_errors
from segue_device.cli.terminal import Terminal
from segue_device.modes import Mode

PORT = 8080

Host = Annotated[str, typer.Option("--host", help="Where to listen.")]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="0 takes a free one, which is printed.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file", metavar="FILE", help="Ask for the key in this file's first line."
    ),
]
Expose = Annotated[
    bool,
    typer.Option("--expose", help="Allow a --host that others reach, in plain text; needs a key."),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="NAME", help="A name this machine is called by."),
]
AllowedOrigins = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", metavar="ORIGIN", help="A web page that may ask."),
]


@reports_errors
def serve(
    model: options.Model,
    cloud: options.Cloud = None,
    mode: options.ModeOption = Mode.SPLIT,
    host: Host = "127.0.0.1",
    port: Port = PORT,
    api_key_file: KeyFile = None,
    expose: Expose = False,
    allow_host: AllowedHosts = None,
    allow_origin: AllowedOrigins = None,
    insecure: options.Insecure = False,
    token_file: options.TokenFile = None,
    ca: options.Authority = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
) -> None:
    """Serve a model to programs that speak OpenAI's interface, until Ctrl-C."""
    import anyio

    from segue_protocol.hosts import is_loopback

    if not is_loopback(host) and not expose:
        raise typer.BadParameter(
            f"others can reach {host}, in plain text; add --expose if they may", param_hint="--host"
        )
    if expose and api_key_file is None:
        raise typer.BadParameter("others could use it; give --api-key-file", param_hint="--expose")
    api_key = None if api_key_file is None else options.first_line(api_key_file)
    anyio.run(
        _serve,
        Terminal(),
        {
            "model": model,
            "cloud": cloud,
            "mode": mode,
            "insecure": insecure,
            "credentials": options.credentials(token_file, ca, certificate, key),
        },
        {
            "host": host,
            "port": port,
            "api_key": api_key,
            "insecure": expose,
            "hosts": tuple(allow_host or ()),
            "origins": tuple(allow_origin or ()),
        },
    )


async def _serve(terminal: Terminal, client: dict[str, Any], server: dict[str, Any]) -> None:
    import anyio

    from segue_device import AsyncClient
    from segue_device.server import serve as listen

    def on_listening(port: int) -> None:
        terminal.line(f"listening on http://{server['host']}:{port}/v1")

    with anyio.CancelScope() as scope, ended_by_signals(scope.cancel):
        async with AsyncClient(**client) as opened:
            await listen(opened, on_listening=on_listening, **server)


@contextmanager
def ended_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call `end` in the running event loop, on every system."""
    import asyncio

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
