"""What part of the compute a worker process may take, in percent.

On NVIDIA it is CUDA MPS's limit, which a process gets at its start and keeps:
a new share means a new process. On a CPU the kernel's scheduler weighs
processes by their nice value, a factor of 1.25 a step: shares then are what
two processes get that both want everything, and one that is alone has it all.
Giving cores instead leaves those of an idle phase idle, and knows no steps but
whole cores (measured by ``benchmarks/compute_shares.py``). An emulated
accelerator's share is a part of its speed.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path

from segue_cloud.config import WorkerConfig
from segue_protocol.errors import InvalidRequest

FULL = 100
# The scheduler's lowest weight is about 1.4 percent of the full one.
LEAST = 2

_WEIGHT_A_STEP = 1.25
_MPS_VARIABLE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"


def require_share(name: str, share: int) -> None:
    """Raise InvalidRequest unless `share`, the setting `name`, is a percentage to work with."""
    if not LEAST <= share <= FULL:
        raise InvalidRequest(f"{name} is {share}, expected a percentage from {LEAST} to {FULL}")


def share_of(config: WorkerConfig) -> int:
    """What a worker may take: one that shares its accelerator less than everything."""
    if not config.resident:
        return FULL
    return config.prefill_share if config.role == "prefill" else config.decode_share


def environment_for(share: int, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to start with a share."""
    limit = {_MPS_VARIABLE: str(share)} if share < FULL else {}
    return {**environment, **limit}


def nice_for(share: int) -> int:
    """The nice value whose weight is nearest to `share` percent of the full one."""
    return round(math.log(FULL / share, _WEIGHT_A_STEP))


def take_share(share: int) -> None:
    """Let every thread of this process, and those to come, weigh `share` percent. Not undone."""
    nice = nice_for(share)
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)
    # Where the kernel groups tasks by session, nice values are compared within
    # a session only, and the session has one of its own.
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/autogroup").write_text(str(nice))
