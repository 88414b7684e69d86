"""The sampler both sides must agree on, bit for bit.

One token in seven steps: logit bias, penalties, temperature, top-k, top-p,
min-p, then the largest of score plus Gumbel noise. The noise depends on
(seed, output index, token id) only and there is no state, so whoever holds
the log can make the next token.

No choice depends on the order of a sum or on a libm: weights are
multiples of 2^-34, so that their float64 sums are exact in any order; log and
exp come from :mod:`segue_protocol.exactmath`. Committed vectors for other
implementations are in ``vectors/sampling.json``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue_protocol.errors import InternalError, InvalidRequest, Unsupported
from segue_protocol.exactmath import exact_exp
from segue_protocol.philox import gumbels
from segue_protocol.sampling_options import Sampling

__all__ = ["Sampled", "Sampling", "sample"]

Logits = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

_MAX_VOCABULARY = 2**19
_WEIGHT_UNIT = 2.0**34  # 2^19 weights of at most 2^34 units sum exactly in 53 bits
_FIRST_HEAD = 1024


@dataclass(frozen=True, slots=True)
class Sampled:
    """One choice.

    ``margin`` is the best score minus the second best after noise and
    truncation, inf with one survivor: how far two engines' logits may differ
    before their choices do. ``logprob`` is the natural log-probability of the
    token under the raw logits at temperature 1; it is told, never compared.
    """

    token_id: int
    margin: float
    logprob: float


def sample(
    logits: Logits,
    sampling: Sampling,
    *,
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    index: int,
) -> Sampled:
    """Choose the token at output `index` after `prompt_ids` and `output_ids`.

    `logits` has the shape [vocab] and is not changed. Penalties count the
    original prompt, never a refined one. `sampling` is taken as validated.

    Raises InternalError when a logit is NaN or +inf or all are -inf,
    InvalidRequest when an id lies outside the logits, Unsupported above
    2^19 ids.
    """
    _check_logits(logits)
    scores = logits.astype(np.float64)
    _add_bias(scores, sampling)
    _penalize(scores, sampling, prompt_ids, output_ids)
    ids = np.flatnonzero(scores > -math.inf)
    scores = scores[ids]
    if sampling.temperature > 0:
        scores /= sampling.temperature
        kept = _survivors(scores, sampling)
        ids, scores = ids[kept], scores[kept]
        scores += gumbels(ids, index, sampling.seed or 0)
    best = int(np.argmax(scores))  # ids ascend, so the first of equals is the smallest
    token_id = int(ids[best])
    return Sampled(token_id, _margin(scores, best), _logprob(logits, token_id))


def _check_logits(logits: Logits) -> None:
    if logits.ndim != 1 or not 0 < logits.size <= _MAX_VOCABULARY:
        raise Unsupported(
            f"logits have the shape {logits.shape}, expected one row of 1..{_MAX_VOCABULARY}"
        )
    largest = float(logits.max())  # NaN if any is
    if not math.isfinite(largest):
        raise InternalError(
            f"the largest logit is {largest}, expected a finite number; "
            "the engine's weights or numerics are broken",
            reason="BAD_LOGITS",
        )


def _add_bias(scores: Scores, sampling: Sampling) -> None:
    for token_id, bias in sampling.logit_bias.items():
        scores[_inside([token_id], scores.size, "logit_bias")] += bias


def _penalize(
    scores: Scores, sampling: Sampling, prompt_ids: Sequence[int], output_ids: Sequence[int]
) -> None:
    if sampling.repetition_penalty != 1.0:
        seen = np.unique(
            np.concatenate(
                [
                    _inside(prompt_ids, scores.size, "the prompt"),
                    _inside(output_ids, scores.size, "the output"),
                ]
            )
        )
        old, penalty = scores[seen], sampling.repetition_penalty
        scores[seen] = np.where(old > 0, old / penalty, old * penalty)
    if len(output_ids) > 0 and (sampling.presence_penalty or sampling.frequency_penalty):
        seen, counts = np.unique(_inside(output_ids, scores.size, "the output"), return_counts=True)
        scores[seen] -= sampling.frequency_penalty * counts
        scores[seen] -= sampling.presence_penalty


def _inside(token_ids: Sequence[int], vocab_size: int, where: str) -> Ids:
    ids = np.asarray(token_ids, dtype=np.int64)
    if ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
        raise InvalidRequest(
            f"a token id in {where} lies outside the {vocab_size} logits; "
            "check that it was made with this model's tokenizer"
        )
    return ids


def _survivors(scores: Scores, sampling: Sampling) -> Ids:
    """Places in `scores` that pass top-k, top-p and min-p, ascending."""
    kept = np.arange(scores.size)
    if 0 < sampling.top_k < scores.size:
        kept = _head(scores, sampling.top_k)
    if sampling.top_p < 1:
        kept = kept[_nucleus(scores[kept], sampling.top_p)]
    if sampling.min_p > 0:
        relative = exact_exp(scores[kept] - scores.max())
        kept = kept[relative >= sampling.min_p]
    return np.sort(kept)


def _head(scores: Scores, count: int) -> Ids:
    """Places of the `count` largest scores, by (score desc, place asc)."""
    if count < scores.size:
        # Only what reaches the count-th largest is worth sorting.
        threshold = np.partition(scores, -count)[-count]
        places = np.flatnonzero(scores >= threshold)
    else:
        places = np.arange(scores.size)
    return places[np.argsort(-scores[places], kind="stable")][:count]


def _nucleus(scores: Scores, top_p: float) -> Ids:
    """The shortest head that holds at least `top_p` of the weight."""
    weights = np.floor(exact_exp(scores - scores.max()) * _WEIGHT_UNIT)
    wanted = top_p * weights.sum()
    count = _FIRST_HEAD
    while True:
        head = _head(scores, count)
        reached = np.cumsum(weights[head])
        if reached[-1] >= wanted:
            return head[: np.searchsorted(reached, wanted) + 1]
        count *= 8  # a flat distribution: the sort of everything is rarely needed


def _margin(scores: Scores, best: int) -> float:
    if scores.size == 1:
        return math.inf
    return float(scores[best] - np.delete(scores, best).max())


def _logprob(logits: Logits, token_id: int) -> float:
    shifted = logits.astype(np.float64) - float(logits.max())
    return float(shifted[token_id] - np.log(np.exp(shifted).sum()))
