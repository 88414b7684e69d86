"""A real cluster of processes, and a device with the ONNX engine, for tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from demos.cluster import Cluster
from segue_cloud.security import cluster_token
from segue_cloud.security.peers import Peers
from segue_device import AsyncClient, DeviceModel, DeviceProfile
from segue_device.convert import convert_to_onnx
from segue_device.engines import EngineRunner, ThrottledEngine, load_engine
from segue_protocol.stubs.segue.cluster.v1.worker_pb2_grpc import MembershipServiceStub
from segue_protocol.stubs.segue.v1.split_inference_pb2_grpc import SplitInferenceServiceStub
from segue_protocol.tokenizer import ChatTokenizer
from segue_protocol.wire import private, public

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "demos" / "model" / "tiny"
DEADLINE_S = 60.0

# Emulated: slow enough that the cloud's part is over before the device is ready.
SLOW = DeviceProfile(0.0, 1 / 800, 0.0, 0.01, 0.02)


def device_model() -> Path:
    """The tiny model in the device's format; made once."""
    return convert_to_onnx(TINY, ROOT / "models" / "tiny-onnx")


@asynccontextmanager
async def connected(
    cluster: Cluster, *, with_engine: bool = True, profile: DeviceProfile = SLOW
) -> AsyncIterator[AsyncClient]:
    """A client of the cluster, its engine slowed to `profile`."""
    model = None
    if with_engine:
        engine = ThrottledEngine(load_engine(device_model()), profile)
        tokenizer = ChatTokenizer.from_directory(TINY)
        model = DeviceModel(EngineRunner(engine), profile, tokenizer.vocabulary, tokenizer)
    async with AsyncClient(
        cloud=cluster.address,
        model=model,
        reuse_kv=False,  # tests run one prompt in several modes
    ) as client:
        yield client


@asynccontextmanager
async def stubs(
    cluster: Cluster,
) -> AsyncIterator[tuple[SplitInferenceServiceStub, MembershipServiceStub]]:
    """Raw gRPC: the public and the private service."""
    async with (
        grpc.aio.insecure_channel(cluster.address) as public_channel,
        _peers(cluster).channel(f"127.0.0.1:{cluster.worker_port}") as private_channel,
    ):
        yield SplitInferenceServiceStub(public_channel), MembershipServiceStub(private_channel)


def _peers(cluster: Cluster) -> Peers:
    """As a command of the same user knows the cluster."""
    return Peers(cluster_token.find(f"127.0.0.1:{cluster.worker_port}"))


async def cluster_status(cluster: Cluster) -> private.ClusterStatus:
    """Every count, asked for now."""
    async with stubs(cluster) as (_, membership):
        return await membership.GetCluster(private.GetClusterRequest(), timeout=5)


async def wait_for(
    cluster: Cluster,
    condition: Callable[[private.ClusterStatus], bool],
    within_s: float = DEADLINE_S,
) -> private.ClusterStatus:
    """Poll the status until the condition holds; fails with the last status."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        status = await cluster_status(cluster)
        if condition(status):
            return status
        assert asyncio.get_running_loop().time() < deadline, status
        await asyncio.sleep(0.05)


def is_idle(status: private.ClusterStatus) -> bool:
    """Both phases are there and every page, slot, stream, session and task is back to zero."""
    workers = status.workers
    roles = {worker.role for worker in workers}
    return (
        roles in ({private.ROLE_PREFILL, private.ROLE_DECODE}, {private.ROLE_AGGREGATED})
        and not any((status.sessions_running, status.tasks_running, status.open_streams))
        and not any(
            worker.slots_used + worker.pages_used + worker.running + worker.parked
            for worker in workers
        )
        and not any(worker.integrity_error for worker in workers)
    )


def pid_of(status: private.ClusterStatus, role: private.Role) -> int:
    """The pid of the (first) worker with a role."""
    return next(worker.pid for worker in status.workers if worker.role == role)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def segue_descriptors(pid: int) -> list[str]:
    """Anonymous memory files a process holds."""
    return [
        os.readlink(entry)
        for entry in Path(f"/proc/{pid}/fd").iterdir()
        if "segue" in os.readlink(entry)
    ]


async def generate(
    cluster: Cluster, requests: Sequence[public.GenerateRequest]
) -> list[public.GenerateResponse]:
    """One raw stream: send everything, read to the end; raises AioRpcError."""
    async with stubs(cluster) as (service, _):
        call = service.Generate(timeout=DEADLINE_S)
        for request in requests:
            await call.write(request)
        responses = []
        while (response := await call.read()) is not grpc.aio.EOF:
            responses.append(response)
        return responses
