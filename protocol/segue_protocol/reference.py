"""A model that is nothing but a function of (ids, positions): exactness level 1.

Both sides run it to show that the machinery changes no token: at any cut,
greedy or seeded, split = cloud-only = device-only, with no tolerance. Its
state is the sum of one hash per (id, position) pair, so it does not matter in
which order or in how many chunks the pairs came, and a pair can be taken back
(`state - pair_hash`).

Its logits let many tokens compete closely; with probability 1/64 a step ends
the answer. The vocabulary has one token a byte, so that characters are split
across tokens, then specials and a few words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from segue_protocol.errors import InvalidRequest
from segue_protocol.identity import ModelIdentity
from segue_protocol.philox import uniforms
from segue_protocol.vocabulary import Vocabulary

STOP_ID = 256
USER_ID = 257
ASSISTANT_ID = 258
DEFAULT_VOCAB_SIZE = 320

_SPECIALS = (b"<|end|>", b"<|user|>", b"<|assistant|>")
_WORDS = (
    b" the| a| of| and| to| in| is| it| you| that| we| for| on| are| with| as| be| at| one| all|"
    b" there| not| but| what| word| when| can| so|ing|ed|er|ly|tion|. The|, and|\n\n"
).split(b"|")

_MASK = 2**64 - 1
# A step ends the answer when its draw for STOP_ID is above this; the mean
# length is then 64 tokens whatever the temperature.
_STOP_ABOVE = 63 / 64
_SPREAD = 8.0
_STOP_LOGIT = 2 * _SPREAD
# Bytes that are no printable ASCII win now and then, so that text stays
# readable and broken UTF-8 still occurs.
_ODD_BYTE_PENALTY = 0.125
_DOMAIN = 0x52454631  # keeps these draws apart from the sampler's


@cache
def reference_vocabulary() -> Vocabulary:
    """Bytes 0..255, then end, user and assistant as specials, then some words."""
    pieces = [bytes([byte]) for byte in range(256)] + [*_SPECIALS, *_WORDS]
    return Vocabulary(dict(enumerate(pieces)), (STOP_ID, USER_ID, ASSISTANT_ID))


def reference_identity(vocab_size: int = DEFAULT_VOCAB_SIZE) -> ModelIdentity:
    """Identity of the reference model; ids above the vocabulary are padding.

    Raises InvalidRequest when `vocab_size` is smaller than the vocabulary.
    """
    _check_vocab_size(vocab_size)
    vocabulary = reference_vocabulary()
    return ModelIdentity(
        model="segue-reference",
        vocab_size=vocab_size,
        vocabulary_digest=vocabulary.digest,
        special_token_ids=tuple(vocabulary.special_ids),
        stop_token_ids=(STOP_ID,),
        weights_digest=vocabulary.digest,
        numerics="fp32",
    )


def pair_hash(
    token_ids: Sequence[int] | npt.NDArray[np.int64],
    positions: Sequence[int] | npt.NDArray[np.int64],
) -> npt.NDArray[np.uint64]:
    """One 64-bit hash (splitmix64's finisher) per (id, position) pair; shape [n].

    Ids and positions are 32-bit numbers; InvalidRequest if the lengths differ.
    """
    if len(token_ids) != len(positions):
        raise InvalidRequest(
            f"{len(token_ids)} token ids came with {len(positions)} positions; "
            "expected one position an id"
        )
    x: npt.NDArray[np.uint64] = np.asarray(positions, dtype=np.uint64) << np.uint64(32)
    x = (x | np.asarray(token_ids, dtype=np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def state_of(
    token_ids: Sequence[int] | npt.NDArray[np.int64],
    positions: Sequence[int] | npt.NDArray[np.int64],
    state: int = 0,
) -> int:
    """`state` with these pairs added: a sum modulo 2^64, so order and chunks do not matter."""
    return (state + int(pair_hash(token_ids, positions).sum(dtype=np.uint64))) & _MASK


def logits_from_state(state: int, vocab_size: int = DEFAULT_VOCAB_SIZE) -> npt.NDArray[np.float32]:
    """Logits after the pairs summed in `state`; shape [vocab_size], padding is -inf."""
    _check_vocab_size(vocab_size)
    vocabulary = reference_vocabulary()
    draws = uniforms(np.arange(len(vocabulary)), 0, state, domain=_DOMAIN)
    logits = np.full(vocab_size, -np.inf, dtype=np.float32)
    logits[: len(vocabulary)] = _SPREAD * draws - _penalties()
    logits[[STOP_ID, USER_ID, ASSISTANT_ID]] = -_STOP_LOGIT
    if draws[STOP_ID] > _STOP_ABOVE:
        logits[STOP_ID] = _STOP_LOGIT
    return logits


def reference_logits(
    token_ids: Sequence[int], positions: Sequence[int], vocab_size: int = DEFAULT_VOCAB_SIZE
) -> npt.NDArray[np.float32]:
    """Logits after a whole sequence at once; shape [vocab_size]."""
    return logits_from_state(state_of(token_ids, positions), vocab_size)


@cache
def _penalties() -> npt.NDArray[np.float64]:
    penalties = np.zeros(len(reference_vocabulary()))
    penalties[[byte for byte in range(256) if not 0x20 <= byte < 0x7F]] = _ODD_BYTE_PENALTY
    return penalties


def _check_vocab_size(vocab_size: int) -> None:
    used = len(reference_vocabulary())
    if vocab_size < used:
        raise InvalidRequest(
            f"vocab_size {vocab_size} is below the {used} ids of the reference model; "
            f"take {used} or more"
        )
