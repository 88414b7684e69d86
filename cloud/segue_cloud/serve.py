"""`segue-cloud serve`: a gateway and its workers as one service."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segue_cloud.cluster.join import JoinHandler
from segue_cloud.cluster.links import GrpcLink
from segue_cloud.cluster.members import Membership
from segue_cloud.cluster.supervisor import Supervisor
from segue_cloud.config import ServeConfig, WorkerConfig
from segue_cloud.gateway.attempt import Budget
from segue_cloud.gateway.gateway import Gateway, GatewayLimits
from segue_cloud.gateway.server import GatewayServer, Ports
from segue_cloud.watch.logs import configure, event
from segue_cloud.watch.watching import Watching
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.tokenizer import ChatTokenizer

log = logging.getLogger(__name__)

STOP_GRACE_S = 0.5


async def serve(config: ServeConfig, on_ready: Callable[[Ports], None]) -> None:
    """Run until SIGINT or SIGTERM; `on_ready` once workers have joined.

    Raises InvalidRequest or Unavailable when the service cannot start.
    """
    _require_loopback(config)
    if config.prefill_workers < 0 or config.decode_workers < 0:
        raise InvalidRequest("prefill_workers and decode_workers cannot be negative")
    if config.websocket_port < -1:
        raise InvalidRequest(
            f"websocket_port is {config.websocket_port}, expected a port, 0 (any free one) or "
            "-1 (no WebSocket)"
        )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    watching = Watching(config)
    membership = Membership(watching.watch)
    gateway = Gateway(
        membership,
        tokenizer=ChatTokenizer.from_directory(Path(config.model)),
        limits=_limits(config),
    )
    server = GatewayServer(
        gateway,
        JoinHandler(membership, GrpcLink, lease_s=config.lease_s),
        origins=[each.strip() for each in config.websocket_origins.split(",") if each.strip()],
    )
    ports = await server.start(
        config.host,
        config.port,
        config.worker_port,
        config.websocket_port if config.websocket_port >= 0 else None,
    )
    supervisor = Supervisor(_workers(config, ports.worker))
    announcing = asyncio.create_task(_announce(server, membership, lambda: on_ready(ports)))
    stopping = asyncio.create_task(stop.wait())
    ends: set[asyncio.Future[Any]] = {stopping, announcing, supervisor.failed}
    try:
        ports.metrics = await watching.start(gateway)
        event(log, logging.INFO, "gateway started", **dataclasses.asdict(ports))
        supervisor.start()
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        announcing.cancel()
        stopping.cancel()
        event(log, logging.INFO, "gateway stops")
        await server.stop(STOP_GRACE_S)
        await supervisor.stop()
        await watching.stop()


async def _announce(
    server: GatewayServer, membership: Membership, on_ready: Callable[[], None]
) -> None:
    """Keep grpc.health.v1 true to the membership."""
    announced = False
    while True:
        await server.set_serving(membership.ready)
        if membership.ready and not announced:
            announced = True
            on_ready()
        await membership.changed()


def _limits(config: ServeConfig) -> GatewayLimits:
    return GatewayLimits(
        budget=Budget(first_token_s=config.first_token_s, inter_token_s=config.inter_token_s),
        credit_cap=config.credit_cap or GatewayLimits().credit_cap,
        heartbeat_s=config.heartbeat_s,
        unclaimed_s=config.unclaimed_s,
    )


def _workers(config: ServeConfig, worker_port: int) -> list[WorkerConfig]:
    roles = ["prefill"] * config.prefill_workers + ["decode"] * config.decode_workers
    return [
        WorkerConfig(
            role=role,
            gateway=f"127.0.0.1:{worker_port}",
            model=config.model,
            dtype=config.dtype,
            threads=config.threads,
            prefill_slots=config.prefill_slots,
            prefill_chunk_tokens=config.prefill_chunk_tokens,
            max_batch=config.max_batch,
            pages=config.pages,
            page_tokens=config.page_tokens,
            max_context_tokens=config.max_context_tokens,
            kv_digest=config.kv_digest,
            log_format=config.log_format,
            log_level=config.log_level,
        )
        for role in roles
    ]


def _require_loopback(config: ServeConfig) -> None:
    try:
        loopback = ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        loopback = config.host == "localhost"
    if not loopback and not config.insecure:
        raise InvalidRequest(
            f"host {config.host!r} is not loopback and this server speaks plain text; "
            "listen on 127.0.0.1 behind a TLS proxy, or say --insecure"
        )


def main(config: ServeConfig) -> int:
    """Serve; returns the exit status."""

    def announce(ports: Ports) -> None:
        parts = [
            f"segue-cloud serves {config.model} on {config.host}:{ports.public}",
            f"workers join at 127.0.0.1:{ports.worker}",
        ]
        if ports.websocket is not None:
            parts.append(f"WebSocket at ws://{config.host}:{ports.websocket}")
        if ports.metrics is not None:
            parts.append(f"metrics at http://{config.metrics_host}:{ports.metrics}/metrics")
        print(", ".join(parts), flush=True)

    try:
        configure(config.log_format, config.log_level)
        asyncio.run(serve(config, announce))
    except SegueError as error:
        print(f"segue-cloud: {error.message}", file=sys.stderr)
        return 1
    return 0
