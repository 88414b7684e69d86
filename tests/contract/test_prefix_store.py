"""Prefixes of prompts outlive the process; what is damaged or of others is never used."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segue_device import DeviceModel, PrefixStore
from segue_device.device_model import Match
from segue_device.engines import (
    Cancel,
    EngineRunner,
    InlineRunner,
    LlamaCppEngine,
    OnnxEngine,
    ReferenceDeviceEngine,
    load_engine,
)
from segue_protocol.errors import InternalError, InvalidRequest
from tests.contract.engine_cases import COMPACT, IDS, PROFILE, Make, after, assert_same

OTHER = [3, *IDS]
# What a process does that was started for one thing: `python -c CODE STORE MODEL ...`.
KEEP = """
import sys
from segue_device import PrefixStore
from segue_device.engines import Cancel, load_engine
directory, model, most, *ids = sys.argv[1:]
engine, ids = load_engine(model), [int(each) for each in ids]
store = PrefixStore(directory, max_bytes=int(most))
for length in [*range(1, len(ids), 7), len(ids)]:
    engine.rewind(0)
    store.restore(engine, ids[:length])
    done = len(engine.cells)
    if done < length:
        engine.append(ids[done:length], range(done, length), cancel=Cancel())
    assert list(engine.cells) == list(enumerate(ids[:length]))
    store.save(engine, ids[:length])
"""


def kept(store: PrefixStore) -> list[Path]:
    """Files from the one used longest ago to the last."""
    return sorted(store.directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def keep(make: Make, store: PrefixStore, *lengths: int) -> None:
    for length in lengths:
        engine = make()
        after(engine, (IDS[:length], COMPACT[:length]))
        store.save(engine, IDS[:length])


def age(path: Path, seconds: int) -> None:
    """As if it had been used so long ago."""
    used_ns = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(used_ns, used_ns))


def test_a_kept_prefix_and_the_rest_are_the_undivided_prompt(make: Make, tmp_path: Path) -> None:
    async def main() -> None:
        store = PrefixStore(tmp_path / "new" / "store")
        first = DeviceModel(EngineRunner(make()), PROFILE, prefix_store=store)
        await first.keep_prefix(IDS[:40])
        await first.keep_prefix(IDS[:40])
        assert len(kept(store)) == 1
        await first.runner.close()
        runner = EngineRunner(make())
        second = DeviceModel(runner, PROFILE, prefix_store=store)
        await second.keep_prefix(IDS[:40])
        assert second.match(IDS) == Match(40, 40)
        assert list(runner.cells) == list(enumerate(IDS[:40]))
        await runner.append(IDS[40:], COMPACT[40:], cancel=Cancel())
        expected = make()
        after(expected, (IDS, COMPACT))
        assert_same(expected, await runner.logits(), expected.logits())
        assert (store.hits, store.misses) == (1, 1)
        await runner.close()

    asyncio.run(main())


def test_what_the_cache_has_is_not_loaded_and_not_computed(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ReferenceDeviceEngine()
        model = DeviceModel(InlineRunner(engine), PROFILE, prefix_store=PrefixStore(tmp_path))
        after(engine, (IDS, COMPACT))
        await model.keep_prefix(IDS[:40])
        assert len(engine.cells) == len(IDS), "the conversation is still there"
        assert engine.append_calls == 1
        await model.keep_prefix(IDS[:60])
        engine.rewind(0)
        await model.keep_prefix(IDS[:70])
        assert engine.append_calls == 2, "60 were loaded, 10 appended"
        assert list(engine.cells) == list(enumerate(IDS[:70]))

    asyncio.run(main())


def test_only_a_beginning_of_the_prompt_counts_and_the_longest_wins(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path)
    keep(ReferenceDeviceEngine, store, 10, 30, 20)
    for prompt, expected in (
        (IDS, 30),
        (IDS[:29], 20),
        ([*IDS[:25], 299, *IDS[26:]], 20),
        (IDS[:10], 10),
        (IDS[:9], 0),
        (OTHER, 0),
        ([*IDS[:10], 10**9], 10),
    ):
        engine = ReferenceDeviceEngine()
        assert store.restore(engine, prompt) == expected == len(engine.cells)
    assert (store.hits, store.misses) == (5, 2)
    small = ReferenceDeviceEngine(max_context_tokens=25)
    assert store.restore(small, IDS) == 20


def test_each_engine_finds_its_own(onnx_dir: Path, gguf_dir: Path, tmp_path: Path) -> None:
    store = PrefixStore(tmp_path)
    makers = [
        lambda: OnnxEngine(onnx_dir),
        lambda: LlamaCppEngine(gguf_dir / "model.gguf"),
        lambda: LlamaCppEngine(gguf_dir / "model.gguf", half_precision_cache=True),
        ReferenceDeviceEngine,
    ]
    for length, make in enumerate(makers, start=10):
        engine = make()
        assert store.restore(engine, IDS) == 0
        after(engine, (IDS[:length], COMPACT[:length]))
        store.save(engine, IDS[:length])
        engine.close()
    for length, make in enumerate(makers, start=10):
        engine = make()
        assert store.restore(engine, IDS) == length
        engine.close()


def test_a_damaged_file_is_deleted_and_the_next_one_taken(make: Make, tmp_path: Path) -> None:
    store = PrefixStore(tmp_path)
    keep(make, store, 20, 30, 40)
    twenty, thirty, forty = kept(store)
    forty.write_bytes(forty.read_bytes()[:-1])
    # Whole, but of other ids than its name says.
    thirty.write_bytes(twenty.read_bytes())
    engine = make()
    assert store.restore(engine, IDS, longer_than=5) == 20
    assert kept(store) == [twenty]
    assert_same(
        engine,
        after(engine, (IDS[20:], COMPACT[20:])),
        after(make(), (IDS, COMPACT)),
    )
    content = bytearray(twenty.read_bytes())
    content[len(content) // 2] ^= 1
    twenty.write_bytes(content)
    assert store.restore(engine, IDS) == 0
    assert list(engine.cells) == []
    assert kept(store) == []
    assert (store.hits, store.misses) == (1, 1)


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    keep(ReferenceDeviceEngine, PrefixStore(tmp_path), 10, 20, 30)
    files = kept(PrefixStore(tmp_path))
    sizes = [path.stat().st_size for path in files]
    for path, seconds in zip(files, (300, 200, 100), strict=True):
        age(path, seconds)
    # Using the oldest makes it the newest; then there is room for two beside the new one.
    store = PrefixStore(tmp_path, max_bytes=sum(sizes) + 200)
    assert store.restore(ReferenceDeviceEngine(), IDS[:15]) == 10
    keep(ReferenceDeviceEngine, store, 31)
    assert kept(store)[:2] == [files[2], files[0]]
    assert len(kept(store)) == 3
    # Keeping what is kept is a use as well.
    age(kept(store)[2], 400)
    keep(ReferenceDeviceEngine, store, 30)
    keep(ReferenceDeviceEngine, store, 32)
    assert {files[0], files[2]} < set(kept(store))
    assert len(kept(store)) == 3


def test_what_can_never_fit_is_refused(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path, max_bytes=500)
    with pytest.raises(InvalidRequest, match="more than the store's 500") as refused:
        keep(ReferenceDeviceEngine, store, 90)
    assert refused.value.reason == "PREFIX_TOO_LARGE"
    assert kept(store) == []
    with pytest.raises(InvalidRequest, match="max_bytes is 0"):
        PrefixStore(tmp_path, max_bytes=0)


def test_files_that_a_dead_process_left_are_deleted(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path)
    for name in ("left.tmp", "written_now.tmp", "not_ours.txt"):
        (tmp_path / name).write_bytes(b"half a file")
    age(tmp_path / "left.tmp", 3700)
    age(tmp_path / "not_ours.txt", 3700)
    keep(ReferenceDeviceEngine, store, 10)
    assert {path.name for path in kept(store)} > {"written_now.tmp", "not_ours.txt"}
    assert len(kept(store)) == 3


def test_bad_calls_and_places_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        model = DeviceModel(InlineRunner(ReferenceDeviceEngine()), PROFILE)
        with pytest.raises(InvalidRequest, match="prefix_store=DIRECTORY") as refused:
            await model.keep_prefix(IDS)
        assert refused.value.reason == "NO_PREFIX_STORE"

    asyncio.run(main())
    engine = ReferenceDeviceEngine()
    after(engine, (IDS[:10], COMPACT[:10]))
    store = PrefixStore(tmp_path / "a file")
    for ids in ([], IDS[:11], OTHER[:5]):
        with pytest.raises(InvalidRequest, match="append them first"):
            store.save(engine, ids)
    (tmp_path / "a file").touch()
    with pytest.raises(InternalError, match="cannot keep a prefix in") as unwritable:
        store.save(engine, IDS[:10])
    assert unwritable.value.reason == "PREFIX_STORE_UNWRITABLE"
    assert store.restore(engine, IDS, longer_than=10) == 0
    engine.close()
    with pytest.raises(InvalidRequest, match="append them first"):
        store.save(engine, IDS[:10])
    good = PrefixStore(tmp_path / "good")
    keep(ReferenceDeviceEngine, good, 10)
    with pytest.raises(InvalidRequest) as refused:
        good.restore(engine, IDS)
    assert refused.value.reason == "ENGINE_CLOSED"
    assert len(kept(good)) == 1, "it is not the file's fault"


@pytest.mark.parametrize("model", ["onnx_dir", "gguf_dir"])
def test_another_process_restores(
    request: pytest.FixtureRequest, model: str, tmp_path: Path
) -> None:
    directory = request.getfixturevalue(model)
    started = process(tmp_path, directory, 1 << 30, IDS[:40])
    assert started.wait() == 0
    store, engine = PrefixStore(tmp_path), load_engine(directory)
    assert store.restore(engine, IDS) == 40
    got = after(engine, (IDS[40:], COMPACT[40:]))
    engine.rewind(0)
    assert_same(engine, got, after(engine, (IDS, COMPACT)))
    engine.close()


def test_two_processes_share_a_directory(onnx_dir: Path, tmp_path: Path) -> None:
    most = 300_000  # 2 kB a cell: they evict each other's all the time
    both = [process(tmp_path, onnx_dir, most, ids) for ids in (IDS, IDS)]
    assert [each.wait() for each in both] == [0, 0]
    assert sum(path.stat().st_size for path in kept(PrefixStore(tmp_path))) <= most
    engine = load_engine(onnx_dir)
    assert PrefixStore(tmp_path).restore(engine, IDS) > 0
    engine.close()


def test_a_model_is_loaded_with_a_directory(onnx_dir: Path, tmp_path: Path) -> None:
    async def main() -> None:
        for hits in (0, 1):
            store = PrefixStore(tmp_path)
            model = await DeviceModel.load(onnx_dir, profile=PROFILE, prefix_store=store)
            await model.keep_prefix(IDS[:50])
            assert (store.hits, model.match(IDS).tokens) == (hits, 50)
            await model.runner.close()
        model = await DeviceModel.load(onnx_dir, profile=PROFILE, prefix_store=tmp_path)
        assert isinstance(model.prefix_store, PrefixStore)
        await model.runner.close()

    asyncio.run(main())


def process(store: Path, model: Path, max_bytes: int, ids: list[int]) -> subprocess.Popen[bytes]:
    arguments = [str(each) for each in (store, model, max_bytes, *ids)]
    return subprocess.Popen([sys.executable, "-c", KEEP, *arguments])
