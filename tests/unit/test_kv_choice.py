"""Which transfer backend a worker's settings give, and which settings are refused."""

from __future__ import annotations

import sys

import pytest

from segue_cloud.config import WorkerConfig
from segue_cloud.kv.backends.choice import transfers_of
from segue_cloud.security.peers import Peers
from segue_protocol.errors import InvalidRequest, Unsupported

PEERS = Peers("a token of thirty-two characters")


def test_shared_memory_is_the_default() -> None:
    assert transfers_of(WorkerConfig(), PEERS).name == "shm"
    assert transfers_of(WorkerConfig(), PEERS).reader().name == "shm"


@pytest.mark.parametrize("name", ["", "rdma", "SHM", "shm,tcp"])
def test_an_unknown_backend_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match="expected one of shm, tcp, nixl"):
        transfers_of(WorkerConfig(transfer=name), PEERS)


def test_nixl_on_a_network_has_to_be_asked_for() -> None:
    with pytest.raises(InvalidRequest, match="asks nobody who they are"):
        transfers_of(WorkerConfig(transfer="nixl", transfer_devices="eth0"), PEERS)
    open_to_all = WorkerConfig(transfer="nixl", transfer_devices="eth0", insecure=True)
    assert transfers_of(open_to_all, PEERS).name == "nixl"


def test_a_missing_nixl_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nixl", None)
    monkeypatch.setitem(sys.modules, "nixl._api", None)
    transfers = transfers_of(WorkerConfig(transfer="nixl"), PEERS)
    with pytest.raises(Unsupported, match=r"segue-cloud\[rdma\]"):
        transfers.reader()
