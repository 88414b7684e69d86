"""How long a device engine goes on computing after it was told to stop.

Usage: ``python benchmarks/cancel.py [--json] [--model DIR] [--runs N]``

Cancels at random moments of a long prefill and of decoding, and takes the time
from the cancel to the engine's thread being idle. Each figure is the largest of
all runs. One thread computes; the model is converted for both engines first.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from segue_device.convert import convert_to_gguf, convert_to_onnx
from segue_device.engines import Cancel, DeviceEngine, load_engine
from segue_protocol.errors import Cancelled

ROOT = Path(__file__).resolve().parents[1]
FORMATS = {"llama_cpp": ("gguf", convert_to_gguf), "onnx": ("onnx", convert_to_onnx)}
TOKEN = 5  # which one is computed makes no difference
DECODED = 256  # tokens a run would decode if nobody stopped it


def prefill(engine: DeviceEngine, cancel: Cancel) -> None:
    """Compute a prompt that leaves room for decoding."""
    length = engine.capabilities.max_context_tokens - DECODED
    engine.append([TOKEN] * length, range(length), cancel=cancel)


def decode(engine: DeviceEngine, cancel: Cancel) -> None:
    """Compute one token after the other behind a short prompt."""
    for position in range(len(engine.cells), len(engine.cells) + DECODED):
        engine.append([TOKEN], [position], cancel=cancel)


PHASES: dict[str, Callable[[DeviceEngine, Cancel], None]] = {"prefill": prefill, "decode": decode}


def cancel_to_idle_s(
    engine: DeviceEngine, phase: str, runs: int, thread: ThreadPoolExecutor
) -> list[float]:
    """Seconds from cancel to idle, one for every run."""

    def work(cancel: Cancel) -> float:
        try:
            PHASES[phase](engine, cancel)
        except Cancelled:
            return time.perf_counter()
        return float("nan")

    def prepare() -> None:
        engine.rewind(0)
        if phase == "decode":
            engine.append([TOKEN] * 64, range(64), cancel=Cancel())

    thread.submit(prepare).result()
    start = time.perf_counter()
    thread.submit(work, Cancel()).result()
    whole_s = time.perf_counter() - start
    moments, found = random.Random(0), []
    while len(found) < runs:
        thread.submit(prepare).result()
        cancel = Cancel()
        running = thread.submit(work, cancel)
        time.sleep(moments.uniform(0.05, 0.8) * whole_s)
        asked = time.perf_counter()
        cancel.set()
        idle = running.result() - asked
        # A run that was over before the cancel says nothing.
        found += [idle] if idle > 0 else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--model", type=Path, default=ROOT / "demos" / "model" / "tiny")
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    worst: dict[str, dict[str, float]] = {}
    for name, (suffix, convert) in FORMATS.items():
        directory = ROOT / "models" / f"{options.model.name}-{suffix}"
        engine = load_engine(convert(options.model, directory))
        worst[name] = {}
        with ThreadPoolExecutor(1) as thread:
            for phase in PHASES:
                found = cancel_to_idle_s(engine, phase, options.runs, thread)
                worst[name][phase] = round(max(found), 6)
                if not options.json:
                    middle = statistics.median(found) * 1e3
                    print(f"{name:10} {phase:8} {middle:6.2f} ms, at most {max(found) * 1e3:.2f}")
        engine.close()
    if options.json:
        print(json.dumps({"cancel_to_idle_s": worst}))


if __name__ == "__main__":
    main()
