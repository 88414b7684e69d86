"""Writes the vectors every implementation of the sampler must reproduce.

    python protocol/tools/make_vectors.py

All numbers are exact: JSON carries the shortest decimal that reads back as the
same double, seeds are decimal strings because JavaScript numbers end at 2^53,
and an infinite margin is null.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from segue_protocol.exactmath import exact_exp, exact_log
from segue_protocol.philox import gumbels, philox4x32, uniforms
from segue_protocol.sampling import Sampling, sample

PATH = Path(__file__).parent.parent / "segue_protocol" / "vectors" / "sampling.json"

INDICES = 12
SEEDS = (0, 1, 2**32, 0x0123456789ABCDEF, 2**64 - 1)
# The three counters and keys published with Random123.
PHILOX_INPUTS = (
    ((0, 0, 0, 0), 0),
    ((0xFFFFFFFF,) * 4, 2**64 - 1),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0x299F31D0A4093822),
)
# Both ends, both sides of each change of exponent, and numbers between.
LOG_INPUTS = (
    *(2.0**-53, 1e-9, 0.1, 0.5, 0.7071067811865475, 0.7071067811865476, 0.75),
    *(1 - 2.0**-53, 1.0, 1 + 2.0**-52, 1.4142135623730951, 1.5, 3.0, 36.7, 1e300),
)
EXP_INPUTS = (0.0, -1e-9, -0.3, -0.34657, -0.34658, -1.0, -5.25, -36.0, -300.0, -708.0, -708.1)


def rows() -> dict[str, list[float]]:
    """Named rows of float32 logits."""
    draws = uniforms(np.arange(48), 0, 7)
    smooth = (14.0 * draws - 7.0).astype(np.float32)
    banned = smooth.astype(object)
    banned[::3] = None  # null stands for -inf
    return {
        "smooth": smooth.tolist(),
        "ties": np.floor(smooth / 2).tolist(),
        "flat": [0.0] * 20,
        "peaked": [*([-30.0] * 10), 9.5, 9.25, *([-30.0] * 10)],
        "banned": banned.tolist(),
        "single": [0.5],
    }


def settings() -> list[tuple[str, Sampling, list[int], list[int]]]:
    """(row, settings, prompt ids, output ids) of every case."""
    prompt, output = [3, 5, 5, 30, 47], [1, 7, 7, 7, 30]
    plain = [
        ("smooth", Sampling()),
        ("ties", Sampling()),
        ("flat", Sampling()),
        ("banned", Sampling()),
        ("single", Sampling()),
        ("single", Sampling(temperature=1.0, seed=3)),
        *[("smooth", Sampling(temperature=1.0, seed=seed)) for seed in SEEDS],
        ("smooth", Sampling(temperature=0.3, seed=11)),
        ("smooth", Sampling(temperature=100.0, seed=11)),
        ("ties", Sampling(temperature=1.3, top_k=7, seed=12)),
        ("flat", Sampling(temperature=1.0, top_k=5, seed=13)),
        ("flat", Sampling(temperature=1.0, top_p=0.5, seed=14)),
        ("flat", Sampling(temperature=1.0, min_p=1.0, seed=15)),
        ("smooth", Sampling(temperature=2.0, top_p=0.8, seed=16)),
        ("smooth", Sampling(temperature=2.0, top_p=1e-9, seed=17)),
        ("smooth", Sampling(temperature=2.0, min_p=0.1, seed=18)),
        ("peaked", Sampling(temperature=0.7, top_p=0.999999, seed=19)),
        ("banned", Sampling(temperature=5.0, top_k=9, top_p=0.9, min_p=0.02, seed=20)),
        ("smooth", Sampling(temperature=1.0, logit_bias={4: 100.0, 9: -100.0}, seed=21)),
        ("smooth", Sampling(logit_bias={4: 2.5, 9: 3.75})),
    ]
    penalties = [
        Sampling(repetition_penalty=1.3),
        Sampling(temperature=1.0, repetition_penalty=0.7, seed=22),
        Sampling(temperature=1.0, presence_penalty=1.5, frequency_penalty=-0.3, seed=23),
        Sampling(
            temperature=1.7,
            top_k=30,
            top_p=0.95,
            min_p=0.01,
            repetition_penalty=1.1,
            presence_penalty=0.2,
            frequency_penalty=0.1,
            logit_bias={7: 4.0, 12: -3.0},
            seed=24,
        ),
    ]
    return [(row, each, [], []) for row, each in plain] + [
        (row, each, prompt, output) for row in ("smooth", "ties") for each in penalties
    ]


def vectors() -> dict[str, list[Any]]:
    """The whole file, one list a section."""
    named = rows()
    return {
        "philox": [_philox_case(counter, key) for counter, key in PHILOX_INPUTS],
        "log": [[x, float(exact_log(np.array([x]))[0])] for x in LOG_INPUTS],
        "exp": [[x, float(exact_exp(np.array([x]))[0])] for x in EXP_INPUTS],
        "noise": [
            {
                "seed": str(seed),
                "index": index,
                "token_id": token_id,
                "uniform": float(uniforms([token_id], index, seed)[0]),
                "gumbel": float(gumbels([token_id], index, seed)[0]),
            }
            for seed in SEEDS
            for index, token_id in ((0, 0), (0, 1), (1, 0), (4095, 151_935), (2**32 - 1, 2**18))
        ],
        "rows": [{"name": name, "logits": logits} for name, logits in named.items()],
        "sampling": [
            _sampling_case(row, named[row], sampling, prompt, output)
            for row, sampling, prompt, output in settings()
        ],
    }


def render() -> str:
    """The text of the file: one entry a line, so that a diff shows what changed."""
    sections = (
        f'"{name}": [\n' + ",\n".join(json.dumps(entry, allow_nan=False) for entry in entries)
        for name, entries in vectors().items()
    )
    return "{\n" + "\n],\n".join(sections) + "\n]\n}\n"


def _philox_case(counter: tuple[int, ...], key: int) -> dict[str, Any]:
    c0, c1, c2, c3 = (np.array([word], dtype=np.uint64) for word in counter)
    words = [int(word[0]) for word in philox4x32((c0, c1, c2, c3), key)]
    return {"counter": list(counter), "key": str(key), "words": words}


def _sampling_case(
    row: str,
    logits: list[float],
    sampling: Sampling,
    prompt_ids: list[int],
    output_ids: list[int],
) -> dict[str, Any]:
    array = np.array([-np.inf if logit is None else logit for logit in logits], dtype=np.float32)
    made = [
        sample(array, sampling, prompt_ids=prompt_ids, output_ids=output_ids, index=index)
        for index in range(INDICES)
    ]
    return {
        "row": row,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": {str(token_id): bias for token_id, bias in sampling.logit_bias.items()},
        "seed": str(sampling.seed or 0),
        "prompt_ids": prompt_ids,
        "output_ids": output_ids,
        "token_ids": [each.token_id for each in made],
        "margins": [None if math.isinf(each.margin) else each.margin for each in made],
    }


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
