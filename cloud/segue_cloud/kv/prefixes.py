"""Names for the beginnings of prompts: a chain of hashes over blocks of token ids.

A key names everything up to the end of its block, so equal keys mean equal
beginnings. Keys beyond the shared tokens depend on a salt: without it a tenant
could learn, from how fast an answer comes, what another one has sent.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

# Hash functions take keys of up to so many bytes.
MAX_SALT_BYTES = hashlib.blake2b.MAX_KEY_SIZE
KEY_BYTES = 32
# The least that is worth a block of its own.
BLOCK_TOKENS = 64


def block_ends(tokens: int, largest: int, first: int = BLOCK_TOKENS) -> list[int]:
    """Where the blocks of a prompt end: 64, 128, 256, ... then every `largest` tokens.

    Short blocks come first because short beginnings are what prompts share
    most; with `first` as long as `largest` all blocks have that length. Ends
    depend on the position alone, and only the last block of a prompt, up to
    `tokens`, is shorter than its place allows.
    """
    ends: list[int] = []
    end = 0
    while end < tokens:
        end += min(max(end, first), largest)
        ends.append(min(end, tokens))
    return ends


def block_keys(
    token_ids: Sequence[int], ends: Sequence[int], *, salt: bytes, shared_tokens: int
) -> list[bytes]:
    """One key for every end, as far as keys may be had.

    Blocks within the first `shared_tokens` have keys that everybody shares,
    later ones such that only the holder of `salt` shares; with an empty salt
    there are none.
    """
    ids = np.asarray(token_ids, "<u4")
    keys: list[bytes] = []
    key, start = b"", 0
    for end in ends:
        if end > shared_tokens and not salt:
            break
        secret = salt if end > shared_tokens else b""
        content = key + ids[start:end].tobytes()
        key = hashlib.blake2b(content, key=secret, digest_size=KEY_BYTES).digest()
        keys.append(key)
        start = end
    return keys


class KnownPrefixes:
    """Which beginnings a worker has prefilled, as far as the gateway remembers."""

    def __init__(self, max_keys: int = 8192) -> None:
        self._max_keys = max_keys
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def remember(self, keys: Sequence[bytes]) -> None:
        """A prompt with these keys was prefilled there."""
        for key in reversed(keys):  # beginnings are forgotten last
            self._keys[key] = None
            self._keys.move_to_end(key)
        while len(self._keys) > self._max_keys:
            self._keys.popitem(last=False)

    def match(self, keys: Sequence[bytes]) -> int:
        """How many leading keys of a prompt are known."""
        for place, key in enumerate(keys):
            if key not in self._keys:
                return place
        return len(keys)
