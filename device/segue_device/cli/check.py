"""``segue check``: what works with a model, and with a cloud beside it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from segue_device.cli import options
from segue_device.cli.failures import ERROR, reports_errors
from segue_device.cli.terminal import Terminal

if TYPE_CHECKING:
    from segue_device import Credentials
    from segue_device.cli.findings import Finding

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@reports_errors
def check(
    model: options.Model,
    cloud: options.Cloud = None,
    insecure: options.Insecure = False,
    token_file: options.TokenFile = None,
    ca: options.Authority = None,
    certificate: options.Certificate = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Check that a model can be used here, and with a cloud."""
    import anyio

    terminal = Terminal()
    shown = options.credentials(token_file, ca, certificate, key)
    found = anyio.run(_examine, terminal, model, cloud, insecure, shown, as_json)
    failed = [finding.check for finding in found if finding.status == "fail"]
    if as_json:
        findings = [asdict(finding) for finding in found]
        terminal.json({"usable": not failed, "findings": findings})
    if failed:
        raise typer.Exit(ERROR)


async def _examine(
    terminal: Terminal,
    model: str,
    cloud: str | None,
    insecure: bool,
    credentials: Credentials,
    quiet: bool,
) -> list[Finding]:
    """Every finding, each printed as soon as it is there unless `quiet`."""
    from segue_device.cli.findings import examine

    found: list[Finding] = []
    findings = examine(model, cloud, insecure=insecure, credentials=credentials)
    while True:
        with terminal.working(f"checking {model}"):
            finding = await anext(findings, None)
        if finding is None:
            return found
        found.append(finding)
        if not quiet:
            _print(terminal, finding)


def _print(terminal: Terminal, finding: Finding) -> None:
    status = finding.status.value
    terminal.line(f"{status:<5} {finding.check}: {finding.detail}", _STYLES[status])
    if finding.remedy:
        terminal.line(f"      {finding.remedy}")
