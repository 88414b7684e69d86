"""Block ends, hash chains, the cache of blocks and the gateway's memory of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue_cloud.kv.layout import Cells, KvLayout
from segue_cloud.kv.prefixes import KnownPrefixes, block_ends, block_keys
from segue_cloud.worker.prefix_cache import PrefixCache
from segue_protocol.errors import InternalError, InvalidRequest

LAYOUT = KvLayout(num_layers=2, num_kv_heads=1, head_dim=1, dtype="float32")
IDS = list(range(100, 500))
ENDS = [64, 128, 256]


def test_blocks_grow_to_the_largest() -> None:
    assert block_ends(1300, 512) == [64, 128, 256, 512, 1024, 1300]
    assert block_ends(200, 64) == [64, 128, 192, 200]
    assert block_ends(40, 16) == [16, 32, 40]
    assert block_ends(1100, 512, first=512) == [512, 1024, 1100]
    assert block_ends(64, 512) == [64]


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 700))
def test_ends_depend_on_the_position_alone(one: int, other: int, largest: int) -> None:
    shorter, longer = sorted((one, other))
    ends = block_ends(shorter, largest)
    assert ends[-1] == shorter
    assert block_ends(longer, largest)[: len(ends) - 1] == ends[:-1]


def test_a_key_names_the_whole_beginning() -> None:
    keys = block_keys(IDS, ENDS, salt=b"a", shared_tokens=0)
    assert len(set(keys)) == 3
    for place, same in ((0, 0), (63, 0), (64, 1), (255, 2), (256, 3)):
        changed = [*IDS[:place], 7, *IDS[place + 1 :]]
        assert _equal(keys, block_keys(changed, ENDS, salt=b"a", shared_tokens=0)) == same


def test_tenants_share_the_keys_of_listed_tokens_only() -> None:
    def keys(salt: bytes, shared_tokens: int) -> list[bytes]:
        return block_keys(IDS, ENDS, salt=salt, shared_tokens=shared_tokens)

    assert _equal(keys(b"a", 0), keys(b"b", 0)) == 0
    assert not set(keys(b"a", 0)) & set(keys(b"b", 0))
    assert _equal(keys(b"a", 128), keys(b"b", 128)) == 2
    assert _equal(keys(b"a", 127), keys(b"b", 127)) == 1
    assert _equal(keys(b"a", 300), keys(b"b", 300)) == 3
    # Without a salt nothing is shared but what everybody shares.
    assert keys(b"", 128) == keys(b"a", 128)[:2]
    assert keys(b"", 0) == []


def _equal(one: list[bytes], other: list[bytes]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


ALL = slice(0, 300)


def _cells(tokens: int, value: float) -> Cells:
    return np.full(LAYOUT.shape(tokens), value, np.float32)


def _keys(name: str, count: int) -> list[bytes]:
    return [f"{name}{place}".encode() for place in range(count)]


def _cache(tokens: int) -> PrefixCache:
    return PrefixCache(LAYOUT, tokens * LAYOUT.bytes_per_token)


def test_what_was_stored_is_loaded_up_to_the_first_gap() -> None:
    cache, keys = _cache(300), _keys("a", 3)
    source = np.random.default_rng(0).random(LAYOUT.shape(300)).astype(np.float32)
    cache.store(keys, ENDS, source, ALL)
    original = source.copy()
    source[:] = 0  # the slot goes to somebody else: the cache has copies
    target = _cells(280, -1.0)
    assert cache.load([*keys[:2], b"unknown"], ENDS, target, ALL) == 2
    assert np.array_equal(target[:, :, :128], original[:, :, :128])
    assert np.all(target[:, :, 128:] == -1.0)
    assert cache.load([b"unknown", *keys[1:]], ENDS, target, ALL) == 0
    cache.check_integrity()


def test_the_least_recently_used_go_first_and_ends_before_beginnings() -> None:
    cache = _cache(3 * 64)
    ends = [64, 128]
    cache.store(_keys("a", 2), ends, _cells(128, 1.0), ALL)
    cache.store(_keys("b", 1), [64], _cells(64, 2.0), ALL)
    cache.store(_keys("a", 2), ends, _cells(128, 1.0), ALL)  # used again
    cache.store(_keys("c", 2), ends, _cells(128, 3.0), ALL)
    target = _cells(128, 0.0)
    assert cache.load(_keys("b", 1), [64], target, ALL) == 0
    assert cache.load(_keys("a", 2), ends, target, ALL) == 1
    assert cache.load(_keys("c", 2), ends, target, ALL) == 2
    cache.check_integrity()


def test_a_prompt_larger_than_the_cache_keeps_its_beginning() -> None:
    cache = _cache(130)
    cache.store(_keys("a", 3), ENDS, _cells(256, 1.0), ALL)
    assert cache.load(_keys("a", 3), ENDS, _cells(256, 0.0), ALL) == 2
    cache.check_integrity()


def test_bytes_that_do_not_add_up_are_noticed() -> None:
    cache = _cache(64)
    cache.used_bytes += 1
    with pytest.raises(InternalError, match="prefix cache"):
        cache.check_integrity()
    with pytest.raises(InvalidRequest, match="prefix_cache_bytes is -1"):
        PrefixCache(LAYOUT, -1)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=30),
    st.integers(0, 400),
)
def test_the_cache_stays_within_its_bytes(prompts: list[tuple[str, int]], tokens: int) -> None:
    cache = _cache(tokens)
    for name, blocks in prompts:
        cache.store(_keys(name, blocks), ENDS[:blocks], _cells(256, float(ord(name))), ALL)
        cache.check_integrity()
        target = _cells(256, 0.0)
        found = cache.load(_keys(name, blocks), ENDS[:blocks], target, ALL)
        # Whatever fits the cache at all is there right after it was stored.
        assert found == sum(end <= tokens for end in ENDS[:blocks])
        assert np.all(target[:, :, : [0, *ENDS][found]] == ord(name))


def test_the_gateway_remembers_the_newest_beginnings() -> None:
    known = KnownPrefixes(max_keys=4)
    old, new = _keys("old", 3), _keys("new", 3)
    known.remember(old)
    assert (known.match(old), known.match(new)) == (3, 0)
    known.remember(new)
    assert (known.match(old), known.match(new)) == (1, 3)
