"""What is replayed: device, network, cloud and targets of one committed file.

A trace holds lengths and arrival times only. Everything else is modelled, and
every such number stands in the case's file under its own name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from segue_cloud.profiles.base import CloudProfile
from segue_cloud.profiles.published import find_profile
from segue_protocol.errors import InvalidRequest
from segue_protocol.timeline import DeviceProfile

HERE = Path(__file__).parent
CONVERSATION = HERE / "case-conversation.json"

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class DeviceCase:
    """A population of devices with one nominal profile."""

    prefill_base_s: float
    prefill_per_token_s: float
    prefill_per_token2_s: float
    decode_s: float
    handover_s: float
    # What a device knows of its own uncertainty (standard deviation).
    relative_error: float
    # Relative, uniform, drawn twice: the speed of a device during one answer beside
    # its profile, and every single step beside that.
    speed_jitter: float
    # Of one prefill step of the engine.
    chunk_tokens: int

    @property
    def profile(self) -> DeviceProfile:
        """What the device believes of itself."""
        names = [each.name for each in fields(DeviceProfile)]
        return DeviceProfile(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, slots=True)
class NetworkCase:
    """Between every device and the gateway; messages of one direction stay in order."""

    rtt_s: float
    # Mean of an exponential delay on top of half a round trip, drawn for every message.
    jitter_s: float
    uplink_bytes_per_s: float
    bytes_per_token: float


@dataclass(frozen=True, slots=True)
class CloudCase:
    """The accelerators: their speed by a stored profile, and their sizes."""

    profile: str
    instances: int
    # Of them, where a policy has both roles.
    prefill_workers: int
    # In the search for capacity, where every ratio of the roles may be tried.
    search_instances: int
    prefill_slots: int
    max_batch: int
    pages: int
    page_tokens: int
    kv_bytes_per_token: int
    transfer_bytes_per_s: float
    # Tokens of one step of an aggregated instance (chunked prefill).
    iteration_tokens: int
    # When the kept list is there, as a part of the prompt's prefill.
    list_share: float
    # How long a request waits for its first token before it is refused.
    first_token_s: float


@dataclass(frozen=True, slots=True)
class TargetCase:
    """What an answer must meet; a stall is a gap between two shown tokens above `stall_s`."""

    ttft_s: float
    # Mean of an answer, as shown.
    tpot_s: float
    stall_s: float
    # Share of the answers that meet all three at what counts as capacity.
    attainment: float
    quality_floor: float


@dataclass(frozen=True, slots=True)
class ReuseCase:
    """Turns of a conversation whose earlier part is in the device's KV cache."""

    # Of all requests, and of the prompt of such a request (uniform between the two).
    share: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Case:
    """One setting of the replay."""

    name: str
    what: str
    trace: str
    max_tokens: int
    device: DeviceCase
    network: NetworkCase
    cloud: CloudCase
    targets: TargetCase
    reuse: ReuseCase
    # Recall kept at each keep ratio, beside the unrefined prompt's, and where it is from.
    quality: Mapping[float, float]
    quality_source: str

    @property
    def cloud_profile(self) -> CloudProfile:
        """How fast the accelerators are."""
        return find_profile(self.cloud.profile)

    @classmethod
    def load(cls, path: Path = CONVERSATION) -> Case:
        """Read a case. Raises InvalidRequest naming what is wrong with it."""
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"cannot read the case {path}: {error}") from error
        where = str(path)
        parts: dict[str, type[Any]] = {
            "device": DeviceCase,
            "network": NetworkCase,
            "cloud": CloudCase,
            "targets": TargetCase,
            "reuse": ReuseCase,
        }
        if not isinstance(table, dict):
            raise InvalidRequest(f"{where} is {table!r}, expected a table")
        for name, kind in parts.items():
            if name in table:
                table[name] = _part(kind, table[name], f"{name} in {where}")
        case = _part(cls, table, where)
        quality = {float(ratio): float(kept) for ratio, kept in case.quality.items()}
        object.__setattr__(case, "quality", quality)
        case.device.profile.validate()
        return case


def _part(kind: type[Part], table: Any, where: str) -> Part:
    if not isinstance(table, dict):
        raise InvalidRequest(f"{where} is {table!r}, expected a table")
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    for name in table:
        if name not in known:
            raise InvalidRequest(f"unknown field {name!r} in {where}; known: {', '.join(known)}")
    for name in known:
        if name not in table:
            raise InvalidRequest(f"{where} lacks {name!r}; known: {', '.join(known)}")
    return kind(**table)
