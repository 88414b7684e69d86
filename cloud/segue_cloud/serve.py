"""`segue-cloud serve`: a gateway and its workers as one service."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segue_cloud.cluster.balancer import Balancer, GroupWatch
from segue_cloud.cluster.groups import Groups
from segue_cloud.cluster.join import JoinHandler
from segue_cloud.cluster.links import GrpcLink
from segue_cloud.cluster.members import Membership
from segue_cloud.cluster.supervisor import Supervisor
from segue_cloud.config import GroupConfig, ServeConfig, WorkerConfig
from segue_cloud.gateway.attempt import Budget
from segue_cloud.gateway.gateway import Gateway, GatewayLimits
from segue_cloud.gateway.server import GatewayServer, Ports
from segue_cloud.gateway.tenants import Tenants
from segue_cloud.security import cluster_token
from segue_cloud.security.peers import Peers
from segue_cloud.security.rates import RequestRates
from segue_cloud.security.tls import PUBLIC_SETTINGS, Tls
from segue_cloud.security.tokens import TenantTokens
from segue_cloud.watch.base import Watches
from segue_cloud.watch.logs import configure, event
from segue_cloud.watch.watching import Watching
from segue_protocol.errors import InvalidRequest, SegueError
from segue_protocol.hosts import with_port
from segue_protocol.tokenizer import ChatTokenizer

log = logging.getLogger(__name__)

STOP_GRACE_S = 0.5
ROLES = ("prefill", "decode", "aggregated", "unified")


async def serve(config: ServeConfig, on_ready: Callable[[Ports], None]) -> None:
    """Run until SIGINT or SIGTERM; `on_ready` once workers have joined.

    Raises InvalidRequest or Unavailable when the service cannot start.
    """
    configured = configured_groups(config)
    if config.websocket_port < -1:
        raise InvalidRequest(
            f"websocket_port is {config.websocket_port}, expected a port, 0 (any free one) or "
            "-1 (no WebSocket)"
        )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tokenizer = ChatTokenizer.from_directory(Path(config.model)) if config.model else None
    groups = Groups.from_config(configured, tokenizer.encode if tokenizer else _no_tokenizer)
    peers = Peers.of(config, _cluster_token(config))
    watching = Watching(config)
    group_watch = GroupWatch(groups.names)
    membership = Membership(groups.names, watch=Watches([watching.watch, group_watch]))
    join = JoinHandler(membership, partial(GrpcLink, peers=peers), lease_s=config.lease_s)
    balancer = Balancer(
        membership,
        group_watch.measures,
        join.switch,
        automatic=[group.name for group in configured if group.auto_ratio],
    )
    gateway = Gateway(
        membership,
        groups=groups,
        tenants=Tenants(config.tenants),
        rates=RequestRates(config.tenants),
        tokenizer=tokenizer,
        limits=_limits(config),
        group_status=balancer.statuses,
    )
    server = GatewayServer(
        gateway,
        join,
        origins=[each.strip() for each in config.websocket_origins.split(",") if each.strip()],
        tls=Tls.load(config.tls_certificate, config.tls_key, config.tls_client_ca, PUBLIC_SETTINGS),
        tokens=TenantTokens(config.tenants),
        peers=peers,
        insecure=config.insecure,
    )
    ports = await server.start(
        config.host,
        config.port,
        config.worker_port,
        config.websocket_port if config.websocket_port >= 0 else None,
        worker_host=config.worker_host,
    )
    if peers.tls is None and not config.cluster_token_file and not config.worker_port:
        cluster_token.publish(ports.worker, peers.token)
    supervisor = Supervisor(_workers(config, configured, ports.worker))
    announcing = asyncio.create_task(_announce(server, membership, lambda: on_ready(ports)))
    stopping = asyncio.create_task(stop.wait())
    balancing = asyncio.create_task(balancer.run())
    ends: set[asyncio.Future[Any]] = {stopping, announcing, balancing, supervisor.failed}
    try:
        ports.metrics = await watching.start(gateway)
        event(log, logging.INFO, "gateway started", **dataclasses.asdict(ports))
        supervisor.start()
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (announcing, stopping, balancing):
            task.cancel()
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


def _cluster_token(config: ServeConfig) -> str:
    if config.cluster_token_file:
        return cluster_token.read(config.cluster_token_file)
    return cluster_token.ensure(config.worker_port) if config.worker_port else cluster_token.draw()


def _no_tokenizer(text: str) -> Sequence[int]:
    raise InvalidRequest(
        "a group names a prompt's text, but there is no model whose tokenizer could read it; "
        "give a model"
    )


def _limits(config: ServeConfig) -> GatewayLimits:
    return GatewayLimits(
        budget=Budget(first_token_s=config.first_token_s, inter_token_s=config.inter_token_s),
        credit_cap=config.credit_cap or GatewayLimits().credit_cap,
        heartbeat_s=config.heartbeat_s,
        unclaimed_s=config.unclaimed_s,
    )


def configured_groups(config: ServeConfig) -> tuple[GroupConfig, ...]:
    """The groups to serve; raises InvalidRequest for numbers of workers that contradict."""
    settings = [f"{role}_workers" for role in ROLES]
    workers = {name: getattr(config, name) for name in settings}
    if config.groups and any(workers[name] != getattr(GroupConfig(), name) for name in settings):
        raise InvalidRequest(f"{_named(settings)} were set beside groups; give every group its own")
    groups = config.groups or (GroupConfig(**workers),)
    for group in groups:
        numbers = [getattr(group, name) for name in settings]
        if min(numbers) < 0:
            raise InvalidRequest(
                f"{_named(settings)} of the group {group.name!r} are {_named(numbers)}; they "
                "cannot be negative"
            )
        if group.auto_ratio and (group.aggregated_workers or group.unified_workers):
            raise InvalidRequest(
                f"the group {group.name!r} has auto_ratio and aggregated or unified workers, which "
                "have no ratio; choose one of the two"
            )
    return groups


def _named(words: Sequence[object]) -> str:
    return f"{', '.join(map(str, words[:-1]))} and {words[-1]}"


def _workers(
    config: ServeConfig, groups: Sequence[GroupConfig], worker_port: int
) -> list[WorkerConfig]:
    return [
        WorkerConfig(
            role=role,
            group=group.name,
            gateway=with_port(_reached_at(config.worker_host), worker_port),
            worker_tls_certificate=config.worker_tls_certificate,
            worker_tls_key=config.worker_tls_key,
            worker_tls_ca=config.worker_tls_ca,
            worker_tls_name=config.worker_tls_name,
            cluster_token_file=config.cluster_token_file,
            insecure=config.insecure,
            model=config.model,
            engine=config.engine,
            profile=config.profile,
            speed=config.speed,
            dtype=config.dtype,
            threads=config.threads,
            prefill_slots=config.prefill_slots,
            prefill_chunk_tokens=config.prefill_chunk_tokens,
            prefix_cache_bytes=config.prefix_cache_bytes,
            refine_layer=config.refine_layer,
            max_batch=config.max_batch,
            iteration_tokens=config.iteration_tokens,
            pages=config.pages,
            page_tokens=config.page_tokens,
            max_context_tokens=config.max_context_tokens,
            kv_digest=config.kv_digest,
            transfer=config.transfer,
            transfer_trigger=config.transfer_trigger,
            transfer_devices=config.transfer_devices,
            transfer_deadline_s=config.transfer_deadline_s,
            prefill_share=config.prefill_share,
            decode_share=config.decode_share,
            ttft_s=group.ttft_s,
            tpot_s=group.tpot_s,
            share_window_s=config.share_window_s,
            drain_grace_s=config.drain_grace_s,
            log_format=config.log_format,
            log_level=config.log_level,
        )
        for group in groups
        for role in ROLES
        for _ in range(getattr(group, f"{role}_workers"))
    ]


def _what(config: ServeConfig) -> str:
    if config.engine != "emulated":
        return config.model
    return (
        f"{config.model or 'the reference model'} (emulated accelerator, profile {config.profile}, "
        f"speed {config.speed:g})"
    )


def _reached_at(host: str) -> str:
    """Where this host reaches a listener of its own."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(host, host)


def main(config: ServeConfig) -> int:
    """Serve; returns the exit status."""

    def announce(ports: Ports) -> None:
        parts = [
            f"segue-cloud serves {_what(config)} on {with_port(config.host, ports.public)}",
            f"workers join at {with_port(config.worker_host, ports.worker)}",
        ]
        if ports.websocket is not None:
            scheme = "wss" if config.tls_certificate else "ws"
            parts.append(f"WebSocket at {scheme}://{with_port(config.host, ports.websocket)}")
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
