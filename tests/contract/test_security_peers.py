"""Between gateway and workers: who may join, who may be called, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc.aio
import pytest

from segue_cloud.cluster.join import JoinHandler
from segue_cloud.cluster.links import GrpcLink
from segue_cloud.cluster.members import Membership
from segue_cloud.config import ServeConfig, WorkerConfig
from segue_cloud.engine.reference import ReferenceEngine
from segue_cloud.gateway.gateway import Gateway
from segue_cloud.gateway.server import GatewayServer
from segue_cloud.kv.contiguous import SlotPool
from segue_cloud.security import cluster_token
from segue_cloud.security.peers import Peers, peers_of_worker
from segue_cloud.worker.compute import InlineCompute
from segue_cloud.worker.prefill import PrefillWorker
from segue_cloud.worker.server import WorkerServer
from segue_protocol.errors import InvalidRequest, SegueError, Unauthenticated, Unavailable
from segue_protocol.grpc_streams import GrpcStream, from_rpc_error
from segue_protocol.stubs.segue.cluster.v1.worker_pb2_grpc import (
    MembershipServiceStub,
    WorkerServiceStub,
)
from segue_protocol.wire import private
from tests.certificates import Authority, Pair
from tests.contract.transports import run, until

TOKEN = cluster_token.draw()


def _with(authority: Authority, pair: Pair, name: str = "") -> Peers:
    """As a process with these files."""
    config = WorkerConfig(
        worker_tls_certificate=str(pair.certificate),
        worker_tls_key=str(pair.key),
        worker_tls_ca=str(authority.file),
        worker_tls_name=name,
    )
    return Peers.of(config, "")


@asynccontextmanager
async def _gateway(peers: Peers) -> AsyncIterator[tuple[Membership, str]]:
    membership = Membership()
    join = JoinHandler(membership, partial(GrpcLink, peers=peers))
    server = GatewayServer(Gateway(membership), join, peers=peers)
    ports = await server.start("127.0.0.1", 0, 0, None)
    try:
        yield membership, f"127.0.0.1:{ports.worker}"
    finally:
        await server.stop(0.5)


@asynccontextmanager
async def _worker(peers: Peers) -> AsyncIterator[WorkerServer]:
    engine = ReferenceEngine()
    slots = SlotPool(engine.layout, 1, 64)
    worker = PrefillWorker(engine, slots, InlineCompute())
    server = WorkerServer(worker, engine, slots.incarnation, peers)
    await server.start("127.0.0.1", 0, "127.0.0.1")
    try:
        yield server
    finally:
        await server.stop(0.5)
        slots.close()


async def _join(of_gateway: Peers, of_worker: Peers) -> None:
    """Join and be called back. Raises what either side refuses."""
    async with _gateway(of_gateway) as (membership, address), _worker(of_worker) as worker:
        joined = asyncio.create_task(_be_a_member(worker, of_worker, address))
        present = asyncio.create_task(until(lambda: len(membership.members) == 1))
        await asyncio.wait([joined, present], return_when=asyncio.FIRST_COMPLETED)
        if joined.done():
            present.cancel()
            await joined
        status = await membership.members[0].link.status()
        assert status.role == private.ROLE_PREFILL
        joined.cancel()
        await asyncio.wait([joined])


async def _be_a_member(worker: WorkerServer, peers: Peers, address: str) -> None:
    """One try of what a worker does for ever."""
    async with peers.channel(address) as channel:
        stream = GrpcStream(MembershipServiceStub(channel).Join(metadata=peers.metadata))
        await stream.send(private.JoinRequest(register=worker.registration()))
        while await stream.receive() is not None:
            pass


def test_the_same_token_on_both_sides() -> None:
    run(_join(Peers(TOKEN), Peers(TOKEN)))


@pytest.mark.parametrize("shown", ["", "wrong", TOKEN[:-1]])
def test_without_the_token_nobody_joins(shown: str) -> None:
    with pytest.raises(Unauthenticated) as raised:
        run(_join(Peers(TOKEN), Peers(shown)))
    assert raised.value.reason == "WRONG_CLUSTER_TOKEN"
    assert TOKEN not in repr(Peers(TOKEN))


def test_without_the_token_every_call_is_refused() -> None:
    async def main() -> None:
        async with _gateway(Peers(TOKEN)) as (_, address), _worker(Peers(TOKEN)) as worker:
            async with grpc.aio.insecure_channel(address) as channel:
                membership = MembershipServiceStub(channel)
                for call in (
                    membership.GetCluster(private.GetClusterRequest()),
                    membership.GetCluster(
                        private.GetClusterRequest(), metadata=(("segue-cluster-token", ""),)
                    ),
                ):
                    await _refused(call)
            async with grpc.aio.insecure_channel(worker.address) as channel:
                stub = WorkerServiceStub(channel)
                await _refused(stub.GetStatus(private.GetStatusRequest()))
                for stream in (GrpcStream(stub.Prefill()), GrpcStream(stub.Decode())):
                    with pytest.raises(Unauthenticated):
                        await stream.receive()

    run(main())


def test_a_server_without_a_token_serves_nobody() -> None:
    with pytest.raises(Unauthenticated):
        run(_join(Peers(), Peers()))


async def _refused(call: grpc.aio.UnaryUnaryCall[object, object]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert isinstance(from_rpc_error(raised.value), Unauthenticated)


def test_certificates_of_one_authority(tmp_path: Path) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    gateway = _with(ours, ours.issue("gateway", "127.0.0.1"))
    worker = _with(ours, ours.issue("worker", "127.0.0.1"))
    run(_join(gateway, worker))
    refused = {
        "no TLS": Peers(TOKEN),
        "another authority": _with(other, other.issue("worker", "127.0.0.1")),
        "a certificate of another authority": _with(ours, other.issue("worker2", "127.0.0.1")),
        "one that is over": _with(ours, ours.issue("old", "127.0.0.1", expired=True)),
    }
    for name, peers in refused.items():
        with pytest.raises(SegueError) as raised:
            run(_join(gateway, peers))
        assert isinstance(raised.value, Unavailable), name


def test_a_name_that_all_certificates_of_a_cluster_carry(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    pair = ours.issue("all", "our-cluster")
    run(_join(_with(ours, pair, "our-cluster"), _with(ours, pair, "our-cluster")))
    with pytest.raises(Unavailable):
        run(_join(_with(ours, pair), _with(ours, pair)))


def test_half_a_configuration(tmp_path: Path) -> None:
    pair = Authority(tmp_path, "ours").issue("gateway")
    files = ServeConfig(worker_tls_certificate=str(pair.certificate), worker_tls_key=str(pair.key))
    with pytest.raises(InvalidRequest, match="worker_tls_ca"):
        Peers.of(files, TOKEN)
    with pytest.raises(InvalidRequest, match="worker_tls_key"):
        Peers.of(replace(files, worker_tls_key=""), TOKEN)


def test_plain_text_stays_on_loopback() -> None:
    async def main() -> None:
        server = grpc.aio.server()
        for host in ("0.0.0.0", "::", "", "cloud.example"):
            with pytest.raises(InvalidRequest, match="insecure"):
                Peers(TOKEN).listen(server, host, 0)
        with pytest.raises(InvalidRequest, match="insecure"):
            Peers(TOKEN).channel("192.0.2.1:8710")
        await Peers(TOKEN, insecure=True).channel("192.0.2.1:8710").close()
        assert Peers(TOKEN, insecure=True).listen(server, "127.0.0.2", 0)
        gateway = GatewayServer(Gateway(Membership()), JoinHandler(Membership(), GrpcLink))
        with pytest.raises(InvalidRequest, match="insecure"):
            await gateway.start("0.0.0.0", 0, 0, None)
        with pytest.raises(InvalidRequest, match="insecure"):
            await gateway.start("127.0.0.1", 0, 0, None, worker_host="0.0.0.0")
        await gateway.stop(0)

    run(main())


def test_the_token_of_a_user_on_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    gateway = "127.0.0.1:4711"
    with pytest.raises(Unauthenticated, match="cluster_token_file"):
        cluster_token.find(gateway)
    path = cluster_token.publish(4711, TOKEN)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert peers_of_worker(WorkerConfig(gateway=gateway)).token == TOKEN
    cluster_token.publish(4711, TOKEN[::-1])
    assert cluster_token.find(gateway) == TOKEN[::-1]
    with pytest.raises(Unauthenticated, match="another host"):
        cluster_token.find("192.0.2.1:4711")
    path.parent.chmod(0o755)
    for use in (lambda: cluster_token.find(gateway), lambda: cluster_token.publish(1, TOKEN)):
        with pytest.raises(InvalidRequest, match="0700"):
            use()


def test_a_token_file_of_the_operators(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for text, named in (("", "no token"), ("short", "no token"), ("x" * 40 + "\ny", "no token")):
        file.write_text(text)
        with pytest.raises(InvalidRequest, match=named):
            cluster_token.read(str(file))
    with pytest.raises(InvalidRequest, match="none"):
        cluster_token.read(str(tmp_path / "none"))
    file.write_text(TOKEN + "\n")
    assert cluster_token.find("192.0.2.1:1", str(file)) == TOKEN
