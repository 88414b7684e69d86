"""One answer in an interpreter of its own, with every network call of Python written down.

Run as ``python -m tests.contract.recorded_answer RECORD CLOUD MODEL MODE``. RECORD
gets a line of JSON for every call, from before the first import of ours to the
very end of the interpreter. Prints what the answer was and what was loaded.
Native code is not seen by these hooks; the sockets that it holds are.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from _socket import socket
from pathlib import Path
from socket import AddressFamily
from typing import Any

# Python's own event loop wakes itself through a pair of these.
_INNER = ("socket.__new__", AddressFamily.AF_UNIX)
# A child process would escape the record.
_CHILDREN = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork")


def record_calls(path: str) -> None:
    """From now on until the interpreter is gone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not event.startswith("socket.") and event not in _CHILDREN:
            return
        told = [each for each in arguments if not isinstance(each, socket)]
        if (event, *told[:1]) != _INNER:
            os.write(descriptor, (json.dumps([event, *map(str, told)]) + "\n").encode())

    sys.addaudithook(hook)


def open_network_sockets() -> list[str]:
    """This process's IPv4 and IPv6 sockets, as the system tells them."""
    held = {os.readlink(entry) for entry in _descriptors()}
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            if f"socket:[{line.split()[9]}]" in held:
                found.append(f"{table} {line}")
    return found


def _descriptors() -> list[Path]:
    return [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]


async def _answer(cloud: str, model: str, mode: str) -> dict[str, Any]:
    from segue_device import AsyncClient

    async with (
        AsyncClient(cloud=cloud, model=model) as client,
        client.stream(prompt="Once upon a time", max_tokens=12, mode=mode) as answer,
    ):
        result = await answer.final()
        sockets = open_network_sockets()
    return {"device_tokens": result.usage.device_tokens, "sockets": sockets}


def main(record: str, cloud: str, model: str, mode: str) -> None:
    record_calls(record)
    told = asyncio.run(_answer(cloud, model, mode))
    told["sockets"] += open_network_sockets()
    told["telemetry_off"] = os.environ.get("ORT_DISABLE_TELEMETRY") == "1"
    print(json.dumps(told | {"modules": sorted(sys.modules)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
