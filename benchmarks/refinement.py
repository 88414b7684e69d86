"""What refining a prompt costs in quality, by scorer and keep ratio.

    python -m benchmarks.refinement [--json] [--prompts N] [--engine onnx|llama_cpp]

The tiny model's recall: a question about one of up to eight facts of one form,
anywhere in a prompt of 256 to 2,048 tokens, at least 64 tokens from its end. The
cloud engine scores each prompt once; a device engine prefills what the list keeps,
at original positions, and answers greedily. `recall` is the share of answers that
are exact to the stop token, `agreement` the share of places where the likeliest
token is that of the unrefined device, teacher-forced on its answer. Controls, with
the same guards: chunks of 32 tokens kept at random, and the prompt's end alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.refinement_devices import CONVERTERS, Tally, answer, judge, open_engine
from benchmarks.refinement_prompts import Question, questions
from segue_cloud.engine.base import Chunk
from segue_cloud.engine.torch_engine import TorchEngine
from segue_cloud.refine.attention import AttentionScorer, OneLayer, all_layers
from segue_cloud.refine.base import Scorer, Scores
from segue_cloud.refine.guards import Guards
from segue_cloud.refine.key_norm import KeyNormScorer
from segue_cloud.refine.ranges import Run, keep_ranges
from segue_cloud.refine.refiner import Refiner
from segue_device.engines import DeviceEngine
from segue_protocol.tokenizer import ChatTokenizer

MODEL = Path(__file__).resolve().parents[1] / "demos" / "model" / "tiny"
# Prompts by length.
PROMPTS = {256: 200, 512: 170, 1024: 130, 2048: 50}
RATIOS = (1.0, 0.75, 0.5, 0.25, 0.1)
SCORERS: dict[str, Scorer] = {
    "one layer": AttentionScorer(OneLayer()),
    "all layers": AttentionScorer(all_layers),
    "key norm": KeyNormScorer(),
}
OURS = "one layer"
# Larger ones than ours: whole sentences survive more often.
CONTROL_CHUNK_TOKENS = 32
CONTROLS: dict[str, Callable[[Sequence[int]], Scores]] = {
    "random": lambda ids: np.random.default_rng(list(ids)).random(len(ids), dtype=np.float32),
    "truncation": lambda ids: np.arange(len(ids), dtype=np.float32),
}
# Below this the model itself fails, and a list could not be judged by it.
LEAST_RECALL = 0.95


class ScoreWatch:
    """Scores one prompt by every scorer in a single pass."""

    def __init__(self, engine: TorchEngine, ids: Sequence[int]) -> None:
        self._engine = engine
        self._cells = np.zeros(engine.layout.shape(len(ids)), engine.layout.storage_dtype)
        layers = engine.layout.num_layers
        self._layers = {name: set(each.layers(layers)) for name, each in SCORERS.items()}
        self.scores = {name: np.zeros(len(ids), np.float32) for name in SCORERS}
        engine.forward(self._cells, [Chunk(ids, range(len(ids)), slice(0, len(ids)))], watch=self)

    def wants_queries(self, layer: int) -> int:
        return max(each.window for each in SCORERS.values())

    def after_layer(self, layer: int, queries: npt.NDArray[np.float32] | None) -> None:
        keys = self._engine.layout.numbers(self._cells[layer, 0])
        for name, scorer in SCORERS.items():
            if layer in self._layers[name]:
                self.scores[name] += scorer.score(queries if scorer.window else None, keys)


def lists(
    engine: TorchEngine, guards: Guards, ids: Sequence[int]
) -> dict[str, dict[float, list[Run]]]:
    """By scorer, or control, and ratio: what is kept of one prompt."""
    scores = ScoreWatch(engine, ids).scores
    found = {
        name: {ratio: keep_ranges(scores[name], ids, ratio, guards) for ratio in RATIOS}
        for name in SCORERS
    }
    for name, control in CONTROLS.items():
        found[name] = {
            ratio: keep_ranges(control(ids), ids, ratio, guards, chunk_tokens=CONTROL_CHUNK_TOKENS)
            for ratio in RATIOS
        }
    return found


def list_share(engine: TorchEngine, guards: Guards, ids: Sequence[int]) -> float:
    """When the list is there, as a share of the time to the first token's logits."""
    cells = np.zeros(engine.layout.shape(len(ids)), engine.layout.storage_dtype)
    refiner = Refiner(engine.layout, guards)
    found_s: list[float] = []
    whole = slice(0, len(ids))
    watch = refiner.watch(ids, 0.5, cells, whole, lambda kept: found_s.append(time.perf_counter()))
    started_s = time.perf_counter()
    engine.forward(cells, [Chunk(ids, range(len(ids)), whole)], watch=watch)
    return (found_s[0] - started_s) / (time.perf_counter() - started_s)


def measure_length(
    cloud: TorchEngine, guards: Guards, device: DeviceEngine, prompts: Sequence[Question]
) -> dict[str, Any]:
    """Every scorer and ratio over prompts of one length."""
    unrefined = [
        answer(device, each.ids, range(len(each.ids)), len(each.answer)) for each in prompts
    ]
    right = [got == list(each.answer) for got, each in zip(unrefined, prompts, strict=True)]
    shares = [list_share(cloud, guards, each.ids) for each in prompts[:8]]
    report: dict[str, Any] = {
        "prompts": len(prompts),
        "tokens": mean(len(each.ids) for each in prompts),
        "unrefined": mean(right),
        "list_share": median(shares),
        "scorers": {},
    }
    if mean(right) < LEAST_RECALL:
        report["left_out"] = f"unrefined recall below {LEAST_RECALL}"
        return report
    tallies = {(name, ratio): Tally() for name in (*SCORERS, *CONTROLS) for ratio in RATIOS}
    for place, (each, whole) in enumerate(zip(prompts, unrefined, strict=True)):
        for name, by_ratio in lists(cloud, guards, each.ids).items():
            for ratio, kept in by_ratio.items():
                if ratio < 1:
                    judge(device, each.ids, kept, whole, each.answer, tallies[name, ratio])
                else:  # nothing is left out: the unrefined answer itself
                    tallies[name, ratio] = _unrefined(tallies[name, ratio], right[place])
        print(f"\r{place + 1}/{len(prompts)} ", end="", file=sys.stderr, flush=True)
    for (name, ratio), tally in tallies.items():
        report["scorers"].setdefault(name, {})[f"{ratio:g}"] = _figures(tally)
    return report


def _unrefined(tally: Tally, right: bool) -> Tally:
    tally.exact.append(right)
    tally.agreeing.append(1.0)
    tally.kept.append(1.0)
    tally.runs.append(1)
    return tally


def _figures(tally: Tally) -> dict[str, Any]:
    return {
        "recall": mean(tally.exact),
        "ci95": wilson(sum(tally.exact), len(tally.exact)),
        "agreement": mean(tally.agreeing),
        "kept": mean(tally.kept),
        "runs": mean(tally.runs),
    }


def wilson(hits: int, trials: int) -> list[float]:
    """The 95 % confidence interval of a share (Wilson's score interval)."""
    z = 1.959964
    share, spread = hits / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return [float(middle - half), float(middle + half)]


def measure(prompts: dict[int, int], engine: str, seed: str = "report") -> dict[str, Any]:
    """The whole report of one device engine: `prompts` says how many of each length."""
    from segue_cloud.engine.loading import load_engine

    tokenizer = ChatTokenizer.from_directory(MODEL)
    cloud = load_engine(MODEL, dtype="float32", threads=1)
    guards = Guards.of(tokenizer.vocabulary)
    (stop_id,) = cloud.identity.stop_token_ids
    lengths: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        device = open_engine(engine, MODEL, Path(scratch) / "model")
        for tokens, count in prompts.items():
            drawn = list(questions(tokenizer, stop_id, tokens, count, seed))
            lengths[str(tokens)] = measure_length(cloud, guards, device, drawn)
        device.close()
    return {"engine": engine, "ours": OURS, "prompts": sum(prompts.values()), "lengths": lengths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--prompts", type=int, help="how many of each length")
    parser.add_argument("--engine", choices=tuple(CONVERTERS), help="one device engine, not both")
    arguments = parser.parse_args()
    prompts = PROMPTS
    if arguments.prompts is not None:
        prompts = dict.fromkeys(PROMPTS, arguments.prompts)
    names = [arguments.engine] if arguments.engine else list(CONVERTERS)
    first, *others = [measure(prompts, name) for name in names]
    report = {**first, "other_engines": {each["engine"]: each for each in others}}
    if arguments.json:
        print(json.dumps(report))
        return
    for each in (first, *others):
        _print(each)


def _print(report: dict[str, Any]) -> None:
    print(f"{report['engine']}, {report['prompts']} prompts; recall (kept share of the prompt)")
    for tokens, row in report["lengths"].items():
        print(
            f"{tokens:>5} tokens: unrefined {row['unrefined']:.3f} of {row['prompts']}, the list "
            f"after {row['list_share']:.0%} of the prefill {row.get('left_out', '')}"
        )
        for name, ratios in row["scorers"].items():
            shown = "  ".join(
                f"{ratio}: {each['recall']:.2f} ({each['kept']:.2f})"
                for ratio, each in ratios.items()
            )
            print(f"      {name:<11} {shown}")


if __name__ == "__main__":
    main()
