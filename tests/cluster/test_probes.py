"""What an operator's tools ask a running cluster: health, reflection, `segue-cloud status`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from demos.cluster import Cluster
from segue_cloud.gateway.server import SERVICE
from tests.processes import is_idle, wait_for


def test_health_says_serving_by_name(cluster: Cluster) -> None:
    with grpc.insecure_channel(cluster.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            stub.Check(health_pb2.HealthCheckRequest(service="segue.v1.Nothing"), timeout=10)


def test_reflection_describes_the_public_service_only(cluster: Cluster) -> None:
    with grpc.insecure_channel(cluster.address) as channel:
        found = ProtoReflectionDescriptorDatabase(channel)
        services = set(found.get_services())
        assert {SERVICE, "grpc.health.v1.Health"} <= services
        assert not any(name.startswith("segue.cluster") for name in services)
        file = found.FindFileContainingSymbol(SERVICE)
        assert "Generate" in {method.name for method in file.service[0].method}


def _status(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segue_cloud.cli", "status", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_status_shows_every_worker(cluster: Cluster) -> None:
    status = asyncio.run(wait_for(cluster, is_idle))
    gateway = f"127.0.0.1:{cluster.worker_port}"
    shown = _status("--gateway", gateway)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"gateway {status.gateway_pid}: 0 answers in progress" in shown.stdout
    for worker in status.workers:
        line = next(each for each in shown.stdout.splitlines() if f" {worker.pid} " in each)
        assert worker.incarnation.hex()[:8] in line
        assert "serving" in line

    found = json.loads(_status("--gateway", gateway, "--json").stdout)
    assert found["gateway_pid"] == status.gateway_pid
    assert {each["incarnation"]: each["role"] for each in found["workers"]} == {
        worker.incarnation.hex(): {1: "ROLE_PREFILL", 2: "ROLE_DECODE"}[worker.role]
        for worker in status.workers
    }


def test_status_of_nobody_is_one_clear_line() -> None:
    shown = _status("--gateway", "127.0.0.1:9")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.startswith("segue-cloud: 127.0.0.1:9: ")
    assert shown.stderr.count("\n") == 1
