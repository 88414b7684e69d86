"""Philox4x32-10, the counter-based generator of Salmon et al. (SC 2011, "Random123").

Counter-based: the noise of token 7 at output index 3 can be computed alone,
in any order, on any machine. That is why two machines can continue one
another's sampling without handing over any state.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segue_protocol.exactmath import exact_log

Words = npt.NDArray[np.uint64]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_ROUNDS = 10
_BLOCK = 16384  # temporaries then stay in a core's cache: twice as fast at 150,000 ids


def philox4x32(counters: tuple[Words, Words, Words, Words], key: int) -> tuple[Words, ...]:
    """The four output words of each counter; ten rounds.

    `counters` are four arrays of 32-bit values held in uint64 that broadcast
    together; `key` is a 64-bit number, its low half the first key word.
    """
    c0, c1, c2, c3 = counters
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(_ROUNDS):
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        c0 = (product1 >> _HALF) ^ (c1 ^ np.uint64(k0))
        c2 = (product0 >> _HALF) ^ (c3 ^ np.uint64(k1))
        c1 = product1 & _LOW
        c3 = product0 & _LOW
        k0 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF
        k1 = (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def words(token_ids: npt.ArrayLike, index: int, seed: int, *, domain: int = 0) -> tuple[Words, ...]:
    """The words for counter (token id, index, domain, 0) and key `seed`; shape [n] each."""
    ids = np.asarray(token_ids, dtype=np.uint64)
    rest = (np.array([word], dtype=np.uint64) for word in (index, domain, 0))
    return philox4x32((ids, *rest), seed)  # type: ignore[arg-type]


def uniforms(
    token_ids: npt.ArrayLike, index: int, seed: int, *, domain: int = 0
) -> npt.NDArray[np.float64]:
    """Uniform numbers strictly inside (0, 1), one a token id; shape [n].

    The odd multiples of 2^-53: 52 bits choose one, and all are exact doubles.
    """
    high, low, *_ = words(token_ids, index, seed, domain=domain)
    chosen = (high << np.uint64(20)) | (low >> np.uint64(12))
    numerators: Words = chosen * np.uint64(2) + np.uint64(1)
    return np.ldexp(numerators.astype(np.float64), -53)


def gumbels(token_ids: npt.ArrayLike, index: int, seed: int) -> npt.NDArray[np.float64]:
    """Standard Gumbel noise -log(-log(u)), inside (-3.7, 36.8); shape [n]."""
    ids = np.asarray(token_ids, dtype=np.uint64)
    noise = np.empty(ids.size, dtype=np.float64)
    for start in range(0, ids.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        noise[block] = -exact_log(-exact_log(uniforms(ids[block], index, seed)))
    return noise
