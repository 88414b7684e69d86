"""A whole cluster with TLS, tokens and mutual TLS inside; and what one without shows."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest

from demos.cluster import Cluster, running_cluster
from segue_cloud.config import WorkerConfig, worker_flags
from segue_cloud.security import cluster_token
from segue_cloud.security.peers import Peers
from segue_device import AsyncClient, Credentials, Mode, Sampling
from segue_protocol.errors import SegueError, Unauthenticated, Unavailable
from segue_protocol.grpc_streams import from_rpc_error
from segue_protocol.stubs.segue.cluster.v1.worker_pb2_grpc import (
    MembershipServiceStub,
    WorkerServiceStub,
)
from segue_protocol.wire import private
from tests.certificates import Authority, Pair
from tests.processes import TINY, device_model
from tests.segue_command import run_process

TOKEN = "token-of-the-only-tenant"
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Secured:
    """A cluster that asks everybody, and what it takes to be let in."""

    cluster: Cluster
    devices: Authority
    workers: Authority
    member: Pair
    device: Credentials
    settings: WorkerConfig

    @property
    def addresses(self) -> tuple[str, str]:
        wss = f"wss://127.0.0.1:{self.cluster.websocket_port}"
        return f"localhost:{self.cluster.port}", wss


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("secured")
    devices, workers = Authority(directory, "devices"), Authority(directory, "workers")
    public = devices.issue("gateway", "127.0.0.1", "localhost")
    device = devices.issue("device")
    member = workers.issue("member", "127.0.0.1")
    tokens = directory / "tokens"
    tokens.write_text(TOKEN + "\n")
    tokens.chmod(0o600)
    settings = WorkerConfig(
        role="decode",
        model=str(TINY),
        pages=64,
        worker_tls_certificate=str(member.certificate),
        worker_tls_key=str(member.key),
        worker_tls_ca=str(workers.file),
    )
    file = directory / "cloud.toml"
    file.write_text(
        f"""
tls_certificate = "{public.certificate}"
tls_key = "{public.key}"
tls_client_ca = "{devices.file}"
worker_tls_certificate = "{member.certificate}"
worker_tls_key = "{member.key}"
worker_tls_ca = "{workers.file}"

[[tenants]]
name = "only"
token_file = "{tokens}"
"""
    )
    shown = Credentials(TOKEN, devices.file, device.certificate, device.key)
    with running_cluster(TINY, "--config", str(file)) as cluster:
        yield Secured(cluster, devices, workers, member, shown, settings)


async def _answer(address: str, credentials: Credentials | None, mode: Mode) -> tuple[int, ...]:
    model = device_model() if mode is Mode.SPLIT else None
    async with AsyncClient(
        cloud=address, model=model, credentials=credentials, reuse_kv=False
    ) as client:
        stream = client.stream(
            prompt="On the way", sampling=Sampling(seed=5), max_tokens=16, mode=mode
        )
        async with stream as answer:
            return tuple((await answer.final()).token_ids)


def test_an_answer_through_everything(secured: Secured) -> None:
    async def main() -> None:
        found = [
            await _answer(address, secured.device, mode)
            for address in secured.addresses
            for mode in (Mode.ONLY_IN_CLOUD, Mode.SPLIT)
        ]
        assert len(found[0]) > 0
        assert set(found) == {found[0]}

    asyncio.run(main())


def test_what_is_missing_is_told(secured: Secured) -> None:
    shown = secured.device
    cases: list[tuple[Credentials | None, type[SegueError], str]] = [
        (None, Unavailable, "TLS"),
        (Credentials(TOKEN, shown.ca_file), Unavailable, "certificate_file"),
        (
            Credentials("", shown.ca_file, shown.certificate_file, shown.key_file),
            Unauthenticated,
            "token",
        ),
        (
            Credentials(TOKEN, secured.workers.file, shown.certificate_file, shown.key_file),
            Unauthenticated,
            "not trusted",
        ),
    ]

    async def main() -> None:
        for address in secured.addresses:
            for credentials, kind, named in cases:
                where = address
                if credentials is None:
                    where = address.replace("wss://", "ws://")
                with pytest.raises(kind, match=named):
                    await _answer(where, credentials, Mode.ONLY_IN_CLOUD)

    asyncio.run(main())


def test_the_command_line(secured: Secured, tmp_path: Path) -> None:
    shown, token = secured.device, tmp_path / "token"
    token.write_text(TOKEN + "\n")
    arguments = ["check", str(device_model()), "--cloud", secured.addresses[1], "--json"]
    refused = run_process(*arguments, "--ca", str(shown.ca_file))
    assert "certificate_file" in refused.out
    found = run_process(
        *arguments,
        *("--ca", str(shown.ca_file), "--certificate", str(shown.certificate_file)),
        *("--key", str(shown.key_file), "--token-file", str(token)),
    )
    assert found.status == 0, found
    assert TOKEN not in found.out + found.err


def _join_by_hand(config: WorkerConfig) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "segue_cloud.cli", "worker", *worker_flags(config)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _settings(secured: Secured, **changes: str) -> WorkerConfig:
    gateway = f"127.0.0.1:{secured.cluster.worker_port}"
    fields = {name: getattr(secured.settings, name) for name in WorkerConfig.__slots__}
    return WorkerConfig(**{**fields, "gateway": gateway, **changes})


def test_a_worker_joins_from_outside_and_a_stranger_does_not(
    secured: Secured, tmp_path: Path
) -> None:
    strangers = Authority(tmp_path, "strangers")
    stranger = strangers.issue("stranger", "127.0.0.1")
    member = _join_by_hand(_settings(secured))
    outside = _join_by_hand(
        _settings(
            secured,
            worker_tls_certificate=str(stranger.certificate),
            worker_tls_key=str(stranger.key),
        )
    )
    try:
        assert outside.stderr is not None
        assert any("not a member" in line for line in outside.stderr), "it says why, and retries"
        asyncio.run(asyncio.wait_for(_until_workers(secured, 3), DEADLINE_S))
        assert member.poll() is None
    finally:
        for process in (member, outside):
            process.kill()
            process.communicate()
    asyncio.run(asyncio.wait_for(_until_workers(secured, 2), DEADLINE_S))


async def _until_workers(secured: Secured, count: int) -> None:
    peers = Peers.of(secured.settings, "")
    async with peers.channel(f"127.0.0.1:{secured.cluster.worker_port}") as channel:
        stub = MembershipServiceStub(channel)
        while True:
            status = await stub.GetCluster(private.GetClusterRequest())
            if len(status.workers) == count:
                return
            await asyncio.sleep(0.05)


def test_without_any_setting_other_users_are_kept_out(cluster: Cluster) -> None:
    """The zero-configuration cluster: its private ports ask, and nothing shows the token."""
    gateway = f"127.0.0.1:{cluster.worker_port}"
    token = cluster_token.find(gateway)
    children = Path(f"/proc/{cluster.process.pid}/task/{cluster.process.pid}/children")
    pids = [cluster.process.pid, *map(int, children.read_text().split())]
    assert len(pids) >= 3
    for pid in pids:
        assert token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert token.encode() not in Path(f"/proc/{pid}/environ").read_bytes()

    async def main() -> None:
        async with grpc.aio.insecure_channel(gateway) as channel:
            await _refused(MembershipServiceStub(channel).GetCluster(private.GetClusterRequest()))
        for address in _listening(pids[1:]):
            async with grpc.aio.insecure_channel(address) as channel:
                await _refused(WorkerServiceStub(channel).GetStatus(private.GetStatusRequest()))

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


async def _refused(call: grpc.aio.UnaryUnaryCall[object, object]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = from_rpc_error(raised.value)
    assert isinstance(error, Unauthenticated)
    assert error.reason == "WRONG_CLUSTER_TOKEN"


def _listening(pids: list[int]) -> list[str]:
    """Loopback addresses that processes listen on, from /proc."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = str(entry.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    for line in itertools.chain.from_iterable(tables):
        local, state, inode = (line.split()[place] for place in (1, 3, 9))
        if state == "0A" and inode in inodes:
            found.append(f"127.0.0.1:{int(local.rpartition(':')[2], 16)}")
    assert len(found) == len(pids)
    return found
