"""What the gateway adds to a stream: against a bare grpc.aio stream of equal messages.

    python -m benchmarks.streaming [--json]

Real gRPC over loopback; a server process (the gateway with stub workers, or a
bare servicer) and this one as the client of all streams, on both sides of the
comparison. Figures:

- ratio_tokens_per_s: one token a message, the gateway's rate over the bare one;
- coalesced_ratio: the gateway's rate when tokens come faster than messages
  leave, over the bare one of one token a message;
- added_latency_p50_us: from a token's making to its arrival at 20 tokens/s and
  stream, the gateway's median less the bare one's;
- cpu_us_per_token: of the server process, one token a message;
- bytes_per_idle_stream: growth of the server's resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from benchmarks.split_requests import start
from benchmarks.streaming_server import stamp
from segue_protocol.reference import reference_identity
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from segue_protocol.wire import public

STREAMS = 64
PROMPT = list(range(32, 64))
ROOT = Path(__file__).resolve().parents[1]

Call = grpc.aio.StreamStreamCall[public.GenerateRequest, public.GenerateResponse]


@dataclass(frozen=True)
class Server:
    """A server process and what it has used so far."""

    pid: int
    port: int

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(side: str, source: str) -> Iterator[Server]:
    """A server process, ended on the way out."""
    command = [sys.executable, "-m", "benchmarks.streaming_server", side, source]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield Server(process.pid, int(process.stdout.readline()))
    finally:
        process.communicate()


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[SplitInferenceServiceStub]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield SplitInferenceServiceStub(channel)


async def _open(stub: SplitInferenceServiceStub, tokens: int) -> Call:
    """A stream that has begun: its first token has come."""
    call: Call = stub.Generate()
    await call.write(start(PROMPT, tokens, reference_identity(), None))
    while not (await _read(call)).HasField("tokens"):
        pass
    return call


async def _read(call: Call) -> public.GenerateResponse:
    message = await call.read()
    assert isinstance(message, public.GenerateResponse), message
    return message


@dataclass(frozen=True)
class Throughput:
    tokens_per_s: float
    tokens_per_message: float
    cpu_us_per_token: float


async def throughput(server: Server, streams: int, tokens: int) -> Throughput:
    """All streams at once, each `tokens` long, from the first start to the last end."""

    async def one(stub: SplitInferenceServiceStub) -> int:
        call: Call = stub.Generate()
        await call.write(start(PROMPT, tokens, reference_identity(), None))
        messages = received = 0
        while True:
            message = await _read(call)
            if message.HasField("tokens"):
                messages += 1
                received += len(message.tokens.ids)
            elif message.HasField("finish"):
                assert received == tokens, (received, tokens)
                return messages

    async with connected(server) as stub:
        await one(stub)  # the connection stands, everything is imported
        cpu_s, began_s = server.cpu_s, time.monotonic()
        messages = sum(await asyncio.gather(*(one(stub) for _ in range(streams))))
        took_s, cpu_s = time.monotonic() - began_s, server.cpu_s - cpu_s
    made = streams * tokens
    return Throughput(made / took_s, made / messages, cpu_s / made * 1e6)


async def latency_us(server: Server, streams: int, tokens: int) -> float:
    """Median from a token's making to its arrival here."""

    async def one(stub: SplitInferenceServiceStub) -> list[int]:
        call = await _open(stub, tokens)
        late: list[int] = []
        while not (message := await _read(call)).HasField("finish"):
            now = stamp()
            late += [(now - token) % 2**31 for token in message.tokens.ids]
        return late

    async with connected(server) as stub:
        late = await asyncio.gather(*(one(stub) for _ in range(streams)))
    return statistics.median(itertools.chain.from_iterable(late))


async def idle_bytes(server: Server, streams: int) -> float:
    """Growth of the server's memory by one of `streams` that wait for their second token.

    Those above some dozens are looked at: by then gRPC's own pools are filled.
    """
    early = min(STREAMS, streams // 2)
    async with connected(server) as stub:
        calls = [await _open(stub, 2) for _ in range(early)]
        before = server.resident_bytes
        calls += [await _open(stub, 2) for _ in range(streams - early)]
        grown = server.resident_bytes - before
        for call in calls:
            call.cancel()
    return grown / (streams - early)


def measure(
    streams: int = STREAMS, tokens: int = 300, rounds: int = 3, idle_streams: int = 1000
) -> dict[str, Any]:
    """Every figure; the rates are medians of alternating rounds."""
    rates: dict[tuple[str, str], list[Throughput]] = {
        ("bare", "lockstep"): [],
        ("gateway", "lockstep"): [],
        ("gateway", "free"): [],
    }
    for _ in range(rounds):
        for (side, source), found in rates.items():
            with serving(side, source) as server:
                found.append(asyncio.run(throughput(server, streams, tokens)))
    bare, gateway, free = (
        statistics.median(each.tokens_per_s for each in found) for found in rates.values()
    )
    bare_cpu, gateway_cpu, free_cpu = (
        statistics.median(each.cpu_us_per_token for each in found) for found in rates.values()
    )
    late, idle = {}, {}
    for side in ("bare", "gateway"):
        with serving(side, "paced") as server:
            late[side] = asyncio.run(latency_us(server, streams, max(2, tokens // 6)))
        with serving(side, "idle") as server:
            idle[side] = asyncio.run(idle_bytes(server, idle_streams))
    return {
        "ratio_tokens_per_s": gateway / bare,
        "coalesced_ratio": free / bare,
        "added_latency_p50_us": late["gateway"] - late["bare"],
        "cpu_us_per_token": gateway_cpu,
        "bytes_per_idle_stream": idle["gateway"],
        "streams": streams,
        "idle_streams": idle_streams,
        "tokens_per_s": {"bare": bare, "gateway": gateway, "coalesced": free},
        "tokens_per_message": {
            "gateway": statistics.median(
                each.tokens_per_message for each in rates["gateway", "lockstep"]
            ),
            "coalesced": statistics.median(
                each.tokens_per_message for each in rates["gateway", "free"]
            ),
        },
        "all_cpu_us_per_token": {"bare": bare_cpu, "gateway": gateway_cpu, "coalesced": free_cpu},
        "latency_p50_us": late,
        "all_bytes_per_idle_stream": idle,
    }


def table(report: dict[str, Any]) -> str:
    """The same for humans."""
    rates, cpu = report["tokens_per_s"], report["all_cpu_us_per_token"]
    lines = [f"{report['streams']} streams over loopback; server and client a process each.", ""]
    for name, per_message in (
        ("bare", 1.0),
        ("gateway", report["tokens_per_message"]["gateway"]),
        ("coalesced", report["tokens_per_message"]["coalesced"]),
    ):
        lines.append(
            f"{name:<10} {rates[name]:>8.0f} tokens/s  {per_message:>5.2f} a message  "
            f"{cpu[name]:>6.1f} us CPU a token"
        )
    lines += [
        "",
        f"one token a message   {report['ratio_tokens_per_s']:.2f} of the bare stream",
        f"coalesced             {report['coalesced_ratio']:.2f}",
        f"added latency p50     {report['added_latency_p50_us']:.0f} us",
        f"an idle stream        {report['bytes_per_idle_stream'] / 1024:.1f} KiB "
        f"({report['idle_streams']} open)",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--tokens", type=int, default=300, help="of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle-streams", type=int, default=1000)
    options = parser.parse_args()
    report = measure(options.streams, options.tokens, options.rounds, options.idle_streams)
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()
