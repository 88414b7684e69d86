"""Every device engine keeps the contract of segue_device.engines.base."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import anyio
import numpy as np
import onnx
import pytest

from segue_device import convert
from segue_device.engines import (
    Cancel,
    DeviceEngine,
    EngineRunner,
    InlineRunner,
    OnnxEngine,
    ReferenceDeviceEngine,
    ThrottledEngine,
    load_engine,
    onnx_cache,
)
from segue_protocol.errors import (
    Cancelled,
    ContextTooLong,
    InvalidRequest,
    NotFound,
    SegueError,
    Unsupported,
)
from segue_protocol.reference import reference_logits
from segue_protocol.timeline import DeviceProfile
from tests.contract import tiny_llama

BUILDER_MISSING = [name for name in convert._MODULES if importlib.util.find_spec(name) is None]
CHUNK = 16
CONTEXT = 96
IDS = np.random.default_rng(7).integers(3, 250, CONTEXT).tolist()
COMPACT = list(range(CONTEXT))
# Three runs kept of a longer prompt, at their original positions.
GAPPED = [*range(0, 20), *range(31, 60), *range(200, 247)]

Make = Callable[..., DeviceEngine]


@pytest.fixture(scope="session")
def hf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    tiny_llama.write_hf_model(directory)
    return directory


@pytest.fixture(scope="session")
def onnx_dir(hf_dir: Path) -> Path:
    directory = hf_dir.parent / "onnx"
    tiny_llama.write_onnx_model(hf_dir, directory)
    convert.expose_positions(directory / "model.onnx")
    return directory


@pytest.fixture(scope="session")
def built_dir(hf_dir: Path) -> Path:
    if BUILDER_MISSING:
        pytest.skip(f"the model builder needs {', '.join(BUILDER_MISSING)}")
    return convert.convert_to_onnx(hf_dir, hf_dir.parent / "built")


@pytest.fixture(params=["reference", "onnx", "onnx-built", "throttled"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes engines of one kind with small chunks and a small context; closes them."""
    made: list[DeviceEngine] = []
    directory = None
    if request.param.startswith("onnx"):
        kind = "onnx_dir" if request.param == "onnx" else "built_dir"
        directory = request.getfixturevalue(kind)

    def make_one(*, chunk_tokens: int = CHUNK, max_context_tokens: int = CONTEXT) -> DeviceEngine:
        options = {"chunk_tokens": chunk_tokens, "max_context_tokens": max_context_tokens}
        engine: DeviceEngine
        if directory is not None:
            engine = OnnxEngine(directory, **options)
        else:
            engine = ReferenceDeviceEngine(**options)
        if request.param == "throttled":
            engine = ThrottledEngine(engine, PROFILE, sleep=lambda seconds, cancel: None)
        made.append(engine)
        return engine

    yield make_one
    for engine in made:
        engine.close()


PROFILE = DeviceProfile(
    prefill_base_s=1.0,
    prefill_per_token_s=0.5,
    prefill_per_token2_s=0.25,
    decode_s=2.0,
    handover_s=0.0,
)


class CancelAt(Cancel):
    """Sets itself when it is asked for the n-th time: a cancel between two chunks."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self._left = asked

    def is_set(self) -> bool:
        self._left -= 1
        if self._left == 0:
            self.set()
        return super().is_set()


def after(engine: DeviceEngine, *appends: tuple[list[int], list[int]]) -> np.ndarray:
    for ids, positions in appends:
        engine.append(ids, positions, cancel=Cancel())
    return engine.logits()


def assert_same(engine: DeviceEngine, got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape == (engine.identity.vocab_size,)
    assert got.dtype == np.float32
    if engine.identity.model == "segue-reference":
        assert np.array_equal(got, expected)
    else:
        assert np.abs(got - expected).max() < 1e-4
        assert got.argmax() == expected.argmax()


@pytest.mark.parametrize("positions", [COMPACT, GAPPED], ids=["compact", "gapped"])
def test_one_append_equals_many(make: Make, positions: list[int]) -> None:
    expected = after(make(chunk_tokens=CONTEXT), (IDS, positions))
    for cuts in ([0, 96], [0, 1, 2, 40, 96], [0, 25, 90, 95, 96]):
        engine = make()
        parts = [(IDS[a:b], positions[a:b]) for a, b in pairwise(cuts)]
        assert_same(engine, after(engine, *parts), expected)
        assert list(engine.cells) == list(zip(positions, IDS, strict=True))


def test_rewind_and_append_again(make: Make) -> None:
    expected = after(make(), (IDS[:50], COMPACT[:50]))
    engine = make()
    after(engine, (IDS[:30], COMPACT[:30]), (IDS[60:90], COMPACT[60:90]))
    assert engine.rewind(30)
    assert len(engine.cells) == 30
    assert_same(engine, after(engine, (IDS[30:50], COMPACT[30:50])), expected)
    assert engine.rewind(0)
    assert list(engine.cells) == []
    assert_same(engine, after(engine, (IDS[:50], COMPACT[:50])), expected)


def test_logits_only_behind_an_append(make: Make) -> None:
    engine = make()
    with pytest.raises(InvalidRequest, match="no logits"):
        engine.logits()
    after(engine, (IDS[:3], COMPACT[:3])).fill(0)
    assert engine.logits().any(), "logits are the caller's own copy"
    engine.rewind(3)
    with pytest.raises(InvalidRequest, match="no logits"):
        engine.logits()


def test_too_many_cells_are_refused_before_any_work(make: Make) -> None:
    engine = make(max_context_tokens=20)
    before = after(engine, (IDS[:20], COMPACT[:20]))
    with pytest.raises(ContextTooLong, match="21 cells"):
        engine.append(IDS[20:21], COMPACT[20:21], cancel=Cancel())
    assert len(engine.cells) == 20
    assert np.array_equal(engine.logits(), before)


@pytest.mark.parametrize(
    ("ids", "positions", "words"),
    [
        ([], [], "at least one id"),
        ([5, 6], [10], "2 token ids and 1 positions"),
        ([5, -1], [10, 11], "token id -1"),
        ([5, 1 << 20], [10, 11], "token id 1048576"),
        ([5, 6], [10, 10], "position 10 follows 10"),
        ([5, 6], [9, 10], "position 9 follows 9"),
    ],
)
def test_bad_input_changes_nothing(
    make: Make, ids: list[int], positions: list[int], words: str
) -> None:
    engine = make()
    before = after(engine, (IDS[:10], COMPACT[:10]))
    with pytest.raises(InvalidRequest, match=words):
        engine.append(ids, positions, cancel=Cancel())
    for cells in (-1, 11):
        with pytest.raises(InvalidRequest, match="expected 0 to 10"):
            engine.rewind(cells)
    assert len(engine.cells) == 10
    assert np.array_equal(engine.logits(), before)


def test_cancelled_before(make: Make) -> None:
    engine, cancel = make(), Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        engine.append(IDS, COMPACT, cancel=cancel)
    assert list(engine.cells) == []
    after(engine, (IDS[:5], COMPACT[:5]))


def test_cancelled_between_chunks(make: Make) -> None:
    expected = after(make(), (IDS, COMPACT))
    engine = make()
    with pytest.raises(Cancelled):
        engine.append(IDS, COMPACT, cancel=CancelAt(3))
    finished = len(engine.cells)
    assert 0 < finished < CONTEXT
    assert finished % CHUNK == 0
    assert list(engine.cells) == list(zip(COMPACT, IDS, strict=True))[:finished]
    with pytest.raises(InvalidRequest, match="no logits"):
        engine.logits()
    assert_same(engine, after(engine, (IDS[finished:], COMPACT[finished:])), expected)


def test_close_twice_and_use_after(make: Make) -> None:
    engine = make()
    after(engine, (IDS[:5], COMPACT[:5]))
    engine.close()
    engine.close()
    uses: list[Callable[[], object]] = [
        lambda: engine.append(IDS[:1], [50], cancel=Cancel()),
        engine.logits,
        lambda: engine.rewind(0),
    ]
    for use in uses:
        with pytest.raises(InvalidRequest) as refused:
            use()
        assert refused.value.reason == "ENGINE_CLOSED"


def test_reference_is_the_protocols_function() -> None:
    engine = ReferenceDeviceEngine(chunk_tokens=7)
    assert np.array_equal(after(engine, (IDS, GAPPED)), reference_logits(IDS, GAPPED))
    assert engine.append_calls == 1


# ONNX ----------------------------------------------------------------------------------------


def torch_logits(hf_dir: Path, ids: list[int], positions: list[int]) -> np.ndarray:
    import torch
    from transformers import LlamaForCausalLM

    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(hf_dir, dtype=torch.float32).eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), position_ids=torch.tensor([positions]))
    return out.logits[0, -1].numpy()


@pytest.mark.parametrize("positions", [COMPACT, GAPPED], ids=["compact", "gapped"])
@pytest.mark.parametrize("kind", ["onnx_dir", "built_dir"])
def test_onnx_agrees_with_torch(
    request: pytest.FixtureRequest, hf_dir: Path, kind: str, positions: list[int]
) -> None:
    engine = OnnxEngine(request.getfixturevalue(kind), chunk_tokens=CHUNK)
    assert engine.capabilities.positions == "exact"
    expected = torch_logits(hf_dir, IDS, positions)
    got = after(engine, (IDS, positions))
    difference = float(np.abs(got - expected).max())
    print(f"{kind}: largest difference from torch {difference:.2e}")
    assert difference < 1e-3
    assert got.argmax() == expected.argmax()
    engine.close()


def test_onnx_cache_grows_without_a_change(
    onnx_dir: Path, hf_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_cache, "FIRST_CELLS", 4)
    engine = OnnxEngine(onnx_dir, chunk_tokens=5)
    capacities = set()
    for index in range(CONTEXT):
        engine.append(IDS[index : index + 1], range(index, index + 1), cancel=Cancel())
        capacities.add(engine._cache.capacity)
    assert capacities == {4, 8, 16, 32, 64, 128}
    assert np.abs(engine.logits() - torch_logits(hf_dir, IDS, COMPACT)).max() < 1e-3
    engine.close()


def test_onnx_run_is_stopped_by_a_cancel_from_another_thread(onnx_dir: Path) -> None:
    class ToldWhenHeard(Cancel):
        heard = threading.Event()

        def add_listener(self, listener: Callable[[], None]) -> None:
            super().add_listener(listener)
            self.heard.set()

    length = 2000
    engine = OnnxEngine(onnx_dir, chunk_tokens=length)
    cancel, ended = ToldWhenHeard(), []

    def run() -> None:
        try:
            engine.append([5] * length, list(range(length)), cancel=cancel)
        except SegueError as error:
            ended.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    cancel.heard.wait()
    cancel.set()
    thread.join()
    assert ended == [Cancelled]
    assert list(engine.cells) == []
    fresh = OnnxEngine(onnx_dir)
    expected = after(fresh, (IDS, COMPACT))
    assert_same(engine, after(engine, (IDS, COMPACT)), expected)
    engine.close()
    fresh.close()


def test_onnx_graph_that_counts_positions_takes_no_gaps(hf_dir: Path, tmp_path: Path) -> None:
    tiny_llama.write_onnx_model(hf_dir, tmp_path / "plain")
    engine = OnnxEngine(tmp_path / "plain")
    assert engine.capabilities.positions == "compact"
    with pytest.raises(Unsupported) as refused:
        engine.append(IDS, GAPPED, cancel=Cancel())
    assert refused.value.reason == "GAPPED_POSITIONS"
    got = after(engine, (IDS, COMPACT))
    assert np.abs(got - torch_logits(hf_dir, IDS, COMPACT)).max() < 1e-3
    engine.close()


def test_onnx_positions_end_with_the_model(onnx_dir: Path) -> None:
    engine = OnnxEngine(onnx_dir)
    with pytest.raises(ContextTooLong, match="positions below 2048"):
        engine.append([5], [2048], cancel=Cancel())
    after(engine, ([5], [2047]))
    engine.close()


def test_onnx_identity_is_that_of_the_source(onnx_dir: Path, hf_dir: Path) -> None:
    from segue_protocol.identity import ModelIdentity

    engine = OnnxEngine(onnx_dir)
    assert engine.identity == ModelIdentity.from_directory(hf_dir, numerics="fp32")
    engine.close()


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"chunk_tokens": 0}, {"max_context_tokens": 2049}]
)
def test_onnx_options_out_of_range(onnx_dir: Path, options: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(options))} is .*, expected 1 to"):
        OnnxEngine(onnx_dir, **options)


def test_onnx_directory_that_is_damaged(onnx_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(onnx_dir, copy)
    (copy / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(InvalidRequest, match="cannot load"):
        OnnxEngine(copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(NotFound, match="convert the model again"):
        OnnxEngine(copy)


def test_onnx_graph_of_another_form(onnx_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(onnx_dir, copy)
    model = onnx.load(str(copy / "model.onnx"))
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("beam_width", onnx.TensorProto.INT64, [1])
    )
    onnx.save(model, str(copy / "model.onnx"))
    with pytest.raises(Unsupported, match="beam_width"):
        OnnxEngine(copy)


def test_onnxruntime_sends_no_telemetry(onnx_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    OnnxEngine(onnx_dir).close()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_engines_import_without_onnxruntime(
    onnx_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys, segue_device.engines, segue_device.convert; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"onnx", "onnxruntime", "torch", "segue_cloud"} & set(out.stdout.split())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Unsupported, match=r'pip install "segue-device\[onnx\]"') as refused:
        load_engine(onnx_dir)
    assert refused.value.reason == "EXTRA_MISSING"


def test_load_engine(onnx_dir: Path, hf_dir: Path, tmp_path: Path) -> None:
    engine = load_engine(onnx_dir, chunk_tokens=8)
    assert isinstance(engine, OnnxEngine)
    assert engine.capabilities.chunk_tokens == 8
    engine.close()
    assert isinstance(load_engine("reference"), ReferenceDeviceEngine)
    with pytest.raises(InvalidRequest, match=r"no option gpu; expected .*chunk_tokens"):
        load_engine(onnx_dir, gpu=True)
    with pytest.raises(Unsupported, match=r"python -m segue_device\.convert"):
        load_engine(hf_dir)
    with pytest.raises(NotFound):
        load_engine(tmp_path / "nowhere")


# Throttled -----------------------------------------------------------------------------------


class Emulated:
    """A throttled reference engine on a clock that only computing and sleeping move."""

    def __init__(self, *, compute_s: float = 0.0, oversleep_s: float = 0.0) -> None:
        self.now_s, self.compute_s, self.oversleep_s = 0.0, compute_s, oversleep_s
        self.sleeps: list[float] = []
        self.cancel_asleep = False
        inner = ReferenceDeviceEngine(chunk_tokens=4)
        compute = inner.append

        def computing(*args: object, **kwargs: object) -> None:
            self.now_s += self.compute_s
            compute(*args, **kwargs)

        inner.append = computing
        self.engine = ThrottledEngine(inner, PROFILE, sleep=self.sleep, clock=lambda: self.now_s)

    def sleep(self, seconds: float, cancel: Cancel) -> None:
        self.sleeps.append(seconds)
        if self.cancel_asleep:
            cancel.set()
            return
        self.now_s += seconds + self.oversleep_s


def test_throttled_prefill_takes_the_profiles_time_chunk_by_chunk() -> None:
    emulated = Emulated(compute_s=0.5)
    emulated.engine.append(IDS[:10], COMPACT[:10], cancel=Cancel())
    assert emulated.now_s == PROFILE.prefill_s(10)
    assert emulated.sleeps == [6.5, 13.5, 9.5]  # P = 7, 21, 31; less computing
    emulated.engine.append(IDS[10:12], COMPACT[10:12], cancel=Cancel())
    assert emulated.now_s == PROFILE.prefill_s(12)
    emulated.engine.append(IDS[12:13], COMPACT[12:13], cancel=Cancel())
    assert emulated.now_s == PROFILE.prefill_s(12) + PROFILE.decode_s


def test_throttled_lateness_does_not_add_up() -> None:
    emulated = Emulated(oversleep_s=0.25)
    for index in range(20):
        emulated.engine.append(IDS[index : index + 1], [index], cancel=Cancel())
    assert emulated.now_s == 20 * PROFILE.decode_s + 0.25


def test_throttled_computing_that_is_too_slow_is_no_debt() -> None:
    emulated = Emulated(compute_s=10.0)
    emulated.engine.append(IDS[:1], [0], cancel=Cancel())
    assert (emulated.sleeps, emulated.now_s) == ([], 10.0)
    emulated.compute_s = 0.0
    emulated.engine.append(IDS[1:2], [1], cancel=Cancel())
    assert emulated.now_s == 10.0 + PROFILE.decode_s


def test_throttled_cancel_ends_the_sleep() -> None:
    emulated = Emulated()
    emulated.cancel_asleep = True
    with pytest.raises(Cancelled):
        emulated.engine.append(IDS[:10], COMPACT[:10], cancel=Cancel())
    assert len(emulated.engine.cells) == 4
    with pytest.raises(InvalidRequest, match="no logits"):
        emulated.engine.logits()


def test_throttled_default_sleep_wakes_on_cancel() -> None:
    year = DeviceProfile(3e7, 0.0, 0.0, 3e7, 0.0)
    engine, cancel, ended = ThrottledEngine(ReferenceDeviceEngine(), year), Cancel(), []

    def run() -> None:
        try:
            engine.append([5], [0], cancel=cancel)
        except Cancelled:
            ended.append("cancelled")

    thread = threading.Thread(target=run)
    thread.start()
    cancel.set()
    thread.join()
    assert ended == ["cancelled"]


# Runners -------------------------------------------------------------------------------------


class Noting(ReferenceDeviceEngine):
    """Notes the threads it is called on."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def append(self, token_ids: list[int], positions: list[int], *, cancel: Cancel) -> None:
        self.threads.add(threading.get_ident())
        super().append(token_ids, positions, cancel=cancel)

    def logits(self) -> np.ndarray:
        self.threads.add(threading.get_ident())
        return super().logits()

    def rewind(self, cells: int) -> bool:
        self.threads.add(threading.get_ident())
        return super().rewind(cells)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        super().close()


class Blocking(Noting):
    """Its append lasts until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.left = threading.Event(), False

    def append(self, token_ids: list[int], positions: list[int], *, cancel: Cancel) -> None:
        stopped = threading.Event()
        with cancel.listening(stopped.set):
            self.entered.set()
            stopped.wait()
        self.left = True
        super().append(token_ids, positions, cancel=cancel)


def test_runner_owns_one_thread() -> None:
    async def main() -> None:
        engine = Noting()
        runner = EngineRunner(engine)
        await runner.append(IDS[:20], range(20), cancel=Cancel())
        expected = reference_logits(IDS[:20], COMPACT[:20])
        assert np.array_equal(await runner.logits(), expected)
        assert await runner.rewind(10)
        assert len(runner.cells) == 10
        assert runner.identity == engine.identity
        assert runner.capabilities == engine.capabilities
        with pytest.raises(InvalidRequest, match="no logits"):
            await runner.logits()
        await runner.close()
        await runner.close()
        with pytest.raises(InvalidRequest) as refused:
            await runner.logits()
        assert refused.value.reason == "ENGINE_CLOSED"
        assert len(engine.threads) == 1
        assert threading.get_ident() not in engine.threads

    anyio.run(main)


def test_runner_waits_for_the_engine_when_its_task_is_cancelled() -> None:
    async def main() -> None:
        engine, cancel = Blocking(), Cancel()
        runner = EngineRunner(engine)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel_soon() -> None:
                    await anyio.to_thread.run_sync(engine.entered.wait)
                    scope.cancel()

                group.start_soon(cancel_soon)
                await runner.append(IDS[:5], COMPACT[:5], cancel=cancel)
        assert scope.cancelled_caught
        assert cancel.is_set()
        assert engine.left
        assert await runner.rewind(0), "the engine is free again"
        await runner.close()

    anyio.run(main)


def test_runner_refuses_a_second_user_and_close_stops_the_first() -> None:
    async def main() -> None:
        engine, ended = Blocking(), []
        runner = EngineRunner(engine)

        async def first() -> None:
            try:
                await runner.append(IDS[:5], COMPACT[:5], cancel=Cancel())
            except Cancelled:
                ended.append("cancelled")

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await anyio.to_thread.run_sync(engine.entered.wait)
            with pytest.raises(InvalidRequest) as refused:
                await runner.logits()
            assert refused.value.reason == "ENGINE_BUSY"
            await runner.close()
        assert ended == ["cancelled"]
        assert len(engine.threads) == 1

    anyio.run(main)


def test_inline_runner_lets_time_pass_by_chunks() -> None:
    async def main() -> None:
        costs: list[tuple[int, int, int]] = []

        async def cost(tokens: int, cells: int) -> None:
            costs.append((tokens, cells, len(runner.cells)))

        engine = ReferenceDeviceEngine(chunk_tokens=4)
        runner = InlineRunner(engine, cost)
        await runner.append(IDS[:10], COMPACT[:10], cancel=Cancel())
        assert costs == [(4, 0, 0), (4, 4, 4), (2, 8, 8)]
        assert engine.append_calls == 1
        assert len(runner.cells) == 10
        expected = reference_logits(IDS[:10], COMPACT[:10])
        assert np.array_equal(await runner.logits(), expected)
        await runner.close()

    anyio.run(main)


@pytest.mark.parametrize("how", ["cancel", "task", "close"])
def test_inline_runner_stops_while_time_passes(how: str) -> None:
    async def main() -> None:
        second_chunk, cancel, ended = anyio.Event(), Cancel(), []

        async def cost(tokens: int, cells: int) -> None:
            if cells:
                second_chunk.set()
                await anyio.sleep_forever()

        engine = ReferenceDeviceEngine(chunk_tokens=4)
        runner = InlineRunner(engine, cost)

        async def first() -> None:
            try:
                await runner.append(IDS[:10], COMPACT[:10], cancel=cancel)
            except Cancelled:
                ended.append("cancelled")
            finally:
                ended.append(len(runner.cells))

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await second_chunk.wait()
            assert len(runner.cells) == 4
            with pytest.raises(InvalidRequest) as refused:
                await runner.logits()
            assert refused.value.reason == "ENGINE_BUSY"
            if how == "cancel":
                cancel.set()
            elif how == "task":
                group.cancel_scope.cancel()
            else:
                await runner.close()
        assert cancel.is_set()
        assert ended == ([4] if how == "task" else ["cancelled", 4])

    anyio.run(main)
