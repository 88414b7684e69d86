"""Which mechanism divides the cores of this machine between two processes as told.

Usage: ``python -m benchmarks.compute_shares [--json] [--seconds S]``

Two processes multiply matrices at the same time, each with a thread for every
core and in a session of its own, as workers are started. ``got`` is the first
one's part of the processor time that both took, ``asked`` its share of the sum
of shares; ``alone`` is the part of the cores that the first one takes while the
other is idle. What else runs on the machine makes ``alone`` smaller and leaves
``got`` as it is, so the load average stands beside it. The mechanisms: ``cores``
(affinity, whole cores rounded up), ``nice`` (the priority of the process
alone), ``weight`` (nice and, where the kernel groups by session, the session's:
what workers use), ``cgroup`` (cpu.weight; null where no group may be made).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

MECHANISMS = ("cores", "nice", "weight", "cgroup")
SHARES = ((50, 100), (25, 100), (80, 20))
CGROUP = Path("/sys/fs/cgroup")
SIZE = 128  # rows of the matrices: the work is in the processor's cache


def apply(mechanism: str, share: int) -> None:
    """Limit this process to a share by one mechanism."""
    from segue_cloud.worker.compute_share import nice_for, take_share

    if mechanism == "cores":
        cores = sorted(os.sched_getaffinity(0))
        count = max(1, math.ceil(len(cores) * share / 100))
        # The smaller half from the other end, so that halves do not overlap.
        os.sched_setaffinity(0, cores[:count] if share >= 60 else cores[-count:])
    elif mechanism == "nice":
        for thread in os.listdir("/proc/self/task"):
            os.setpriority(os.PRIO_PROCESS, int(thread), nice_for(share))
    elif mechanism == "weight":
        take_share(share)
    elif mechanism == "cgroup":
        group = CGROUP / f"segue-shares-{os.getpid()}"
        group.mkdir()
        (group / "cpu.weight").write_text(str(share))
        (group / "cgroup.procs").write_text(str(os.getpid()))


def work(mechanism: str, share: int, seconds: float) -> None:
    """The body of a process: say when ready, wait for a line, say what it took."""
    import numpy as np

    apply(mechanism, share)
    matrix = np.ones((SIZE, SIZE), np.float32)
    print(flush=True)
    sys.stdin.readline()
    end_s = time.monotonic() + seconds

    def multiply() -> None:
        while time.monotonic() < end_s:
            matrix @ matrix

    threads = [threading.Thread(target=multiply) for _ in range(os.cpu_count() or 1)]
    started_s = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.process_time() - started_s, flush=True)


def run(mechanism: str, shares: tuple[int, ...], seconds: float) -> list[float]:
    """Processor seconds that processes with these shares take side by side."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "--work", mechanism, str(share), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        for share in shares
    ]
    try:
        for each in processes:
            assert each.stdout is not None
            each.stdout.readline()
        for each in processes:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        return [float(each.communicate()[0]) for each in processes]
    finally:
        for each in processes:
            each.kill()
            each.wait()


def available(mechanism: str) -> bool:
    """Whether this machine lets us use it."""
    if mechanism != "cgroup":
        return True
    return (CGROUP / "cgroup.controllers").exists() and os.access(CGROUP, os.W_OK)


def measure(
    *,
    mechanisms: tuple[str, ...] = MECHANISMS,
    shares: tuple[tuple[int, int], ...] = SHARES,
    seconds: float = 2.0,
) -> dict[str, Any]:
    """One row for every mechanism and pair of shares."""
    cores, rows = len(os.sched_getaffinity(0)), []
    for mechanism in mechanisms:
        for pair in shares:
            row: dict[str, Any] = {"mechanism": mechanism, "x": pair[0], "y": pair[1]}
            row["asked"] = round(pair[0] / sum(pair), 3)
            row["got"] = row["alone"] = None
            if available(mechanism):
                first, second = run(mechanism, pair, seconds)
                row["got"] = round(first / (first + second), 3)
                row["alone"] = round(run(mechanism, pair[:1], seconds)[0] / seconds / cores, 3)
            rows.append(row)
    return {"cores": cores, "load_average": round(os.getloadavg()[0], 1), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        mechanism, share, seconds = options.work
        work(mechanism, int(share), float(seconds))
        return
    found = measure(seconds=options.seconds)
    if options.json:
        print(json.dumps(found))
        return
    for row in found["rows"]:
        print(" ".join(f"{name} {value!s:8}" for name, value in row.items()))


if __name__ == "__main__":
    main()
