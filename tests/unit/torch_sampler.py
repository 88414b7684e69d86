"""The sampler once more, in torch alone: proof that another library gives the same bits.

Everything is sorted whole and nothing is skipped, so it also checks the
shortcuts of segue_protocol.sampling. torch has no unsigned 64-bit arithmetic;
the products of two 32-bit words wrap in int64 and are masked after shifting.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from segue_protocol.exactmath import (
    EXP_FLOOR,
    EXP_SERIES,
    INVERSE_LN2,
    LN2_HIGH,
    LN2_LOW,
    LOG_SERIES,
    SQRT_HALF,
)
from segue_protocol.sampling import Sampling

LOW = 0xFFFFFFFF


def sample(
    logits: torch.Tensor,
    sampling: Sampling,
    *,
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    index: int,
) -> tuple[int, float]:
    scores = logits.double()
    for token_id, bias in sampling.logit_bias.items():
        scores[token_id] += bias
    for token_id in {*prompt_ids, *output_ids}:
        old, penalty = scores[token_id].clone(), sampling.repetition_penalty
        scores[token_id] = old / penalty if old > 0 else old * penalty
    for token_id in set(output_ids):
        scores[token_id] -= sampling.frequency_penalty * list(output_ids).count(token_id)
        scores[token_id] -= sampling.presence_penalty
    ids = torch.nonzero(scores > -torch.inf).flatten()
    if sampling.temperature > 0:
        scores = scores / sampling.temperature
        ids = ids[torch.sort(-scores[ids], stable=True).indices]
        if sampling.top_k > 0:
            ids = ids[: sampling.top_k]
        best = scores[ids[0]]
        if sampling.top_p < 1:
            weights = torch.floor(exact_exp(scores[ids] - best) * 2.0**34)
            reached = torch.cumsum(weights, 0)
            ids = ids[: int((reached < sampling.top_p * weights.sum()).sum()) + 1]
        if sampling.min_p > 0:
            ids = ids[exact_exp(scores[ids] - best) >= sampling.min_p]
        ids = torch.sort(ids).values
        scores = scores[ids] + gumbels(ids, index, sampling.seed)
    else:
        scores = scores[ids]
    order = torch.sort(-scores, stable=True).indices
    margin = float(scores[order[0]] - scores[order[1]]) if len(order) > 1 else float("inf")
    return int(ids[order[0]]), margin


def gumbels(ids: torch.Tensor, index: int, seed: int) -> torch.Tensor:
    high, low = philox(ids, index, seed)
    chosen = (high << 20) | (low >> 12)
    uniform = (chosen * 2 + 1).double() * 2.0**-53
    return -exact_log(-exact_log(uniform))


def philox(ids: torch.Tensor, index: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    c0, c1 = ids.long(), torch.full_like(ids, index)
    c2, c3 = torch.zeros_like(ids), torch.zeros_like(ids)
    k0, k1 = seed & LOW, seed >> 32
    for _ in range(10):
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = ((product1 >> 32) & LOW) ^ c1 ^ k0, product1 & LOW
        c2, c3 = ((product0 >> 32) & LOW) ^ c3 ^ k1, product0 & LOW
        k0, k1 = (k0 + 0x9E3779B9) & LOW, (k1 + 0xBB67AE85) & LOW
    return c0, c1


def exact_log(x: torch.Tensor) -> torch.Tensor:
    mantissa, exponent = torch.frexp(x)
    small = mantissa < SQRT_HALF
    f = torch.where(small, mantissa * 2, mantissa) - 1
    k = (exponent - small.int()).double()
    s = f / (2 + f)
    z = s * s
    half_square = 0.5 * f * f
    series = z * horner(LOG_SERIES, z)
    return k * LN2_HIGH - ((half_square - (s * (half_square + series) + k * LN2_LOW)) - f)


def exact_exp(x: torch.Tensor) -> torch.Tensor:
    clamped = torch.clamp(x, min=EXP_FLOOR)
    k = torch.floor(clamped * INVERSE_LN2 + 0.5)
    high, low = clamped - k * LN2_HIGH, k * LN2_LOW
    r = high - low
    z = r * r
    c = r - z * horner(EXP_SERIES, z)
    y = 1 - ((low - (r * c) / (2 - c)) - high)
    power = ((k.long() + 1023) << 52).view(torch.float64)  # torch.ldexp goes through float32 pow
    return torch.where(x < EXP_FLOOR, 0.0, y * power)


def horner(coefficients: tuple[float, ...], z: torch.Tensor) -> torch.Tensor:
    total = torch.full_like(z, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * z + coefficient
    return total
