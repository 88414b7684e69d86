"""The backend that a worker is configured for: its end of it, made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from segue_cloud.config import WorkerConfig
from segue_cloud.kv.backends.base import Reader, Sender, TransferName, require_transfer
from segue_cloud.kv.backends.nixl import NixlReader
from segue_cloud.kv.backends.nixl_agent import LOOPBACK
from segue_cloud.kv.backends.nixl_sender import NixlSender
from segue_cloud.kv.backends.shm import ShmReader, ShmSender
from segue_cloud.kv.backends.tcp import TcpReader, TcpSecurity
from segue_cloud.kv.backends.tcp_sender import TcpSender
from segue_cloud.kv.memory import MemoryFile
from segue_cloud.security.peers import Peers
from segue_protocol.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Transfers:
    """How one worker moves KV."""

    name: TransferName
    sender: Callable[[MemoryFile], Sender]
    reader: Callable[[], Reader]


def transfers_of(config: WorkerConfig, peers: Peers) -> Transfers:
    """From the settings `transfer` and `transfer_*`. Raises InvalidRequest.

    Making an end of it raises Unsupported where NIXL is missing.
    """
    name, devices = require_transfer(config.transfer), config.transfer_devices
    if name == "shm":
        return Transfers(name, lambda memory: ShmSender(), ShmReader)
    if name == "nixl":
        if devices != LOOPBACK and not config.insecure:
            raise InvalidRequest(
                f"transfer_devices is {devices!r}: NIXL moves KV over it in plain text and asks "
                "nobody who they are; say --insecure on a network of the cluster's own"
            )
        return Transfers(
            name, lambda memory: NixlSender(memory, devices), lambda: NixlReader(devices)
        )
    security = TcpSecurity(peers.token, peers.tls, peers.tls_name)

    def sender(memory: MemoryFile) -> Sender:
        return TcpSender(
            memory,
            security,
            host=config.host,
            port=config.transfer_port,
            advertised_host=config.advertised_host,
            insecure=config.insecure,
        )

    return Transfers(name, sender, lambda: TcpReader(security))
