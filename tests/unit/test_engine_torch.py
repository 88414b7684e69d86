"""The torch engine equals transformers, however its batches are cut and its cells lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.kv_sender import RemoteSender
from segue_cloud.engine.base import Chunk
from segue_cloud.engine.loading import load_engine
from segue_cloud.engine.torch_engine import TorchEngine
from segue_cloud.kv.pages import PagePool, PageTable
from segue_cloud.kv.transfer import KvPuller
from segue_protocol.errors import ContextTooLong, InternalError, InvalidRequest
from tests.unit.engine_models import FAMILIES, VOCAB_SIZE, transformers_model, write_model

OUTPUT_TOKENS = 12
TOLERANCE = 1e-4  # of logits whose spread is about 1; float32 in another order of sums


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def engine(llama) -> TorchEngine:
    return load_engine(llama)


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, length).tolist()


def whole(engine: TorchEngine, ids: list[int]) -> np.ndarray:
    """Logits [vocab] after `ids`, prefilled at once into contiguous cells."""
    cells = np.zeros(engine.layout.shape(len(ids)), engine.layout.storage_dtype)
    return engine.forward(cells, [Chunk(ids, range(len(ids)), slice(0, len(ids)))])[0]


class Paged:
    """One request over a shared pool, fed chunk by chunk."""

    def __init__(self, pool: PagePool, ids: list[int], chunk_tokens: int) -> None:
        table = pool.reserve(len(ids) + OUTPUT_TOKENS)
        assert table is not None
        self.table: PageTable = table
        self.prompt_tokens = len(ids)
        self.ids = list(ids)
        self.held = 0
        self.chunk_tokens = chunk_tokens

    @property
    def done(self) -> bool:
        return len(self.ids) == self.prompt_tokens + OUTPUT_TOKENS

    def chunk(self) -> Chunk:
        end = min(self.held + self.chunk_tokens, len(self.ids))
        return Chunk(self.ids[self.held : end], range(self.held, end), self.table.cells(end))

    def take(self, logits: np.ndarray, new: int) -> None:
        self.held += new
        if self.held == len(self.ids):
            self.ids.append(int(logits.argmax()))


def run(engine: TorchEngine, pool: PagePool, requests: list[Paged], arrive_every: int) -> None:
    """Greedy decoding in one ragged batch a step; request i arrives after i * arrive_every."""
    step = 0
    while not all(request.done for request in requests):
        active = [r for i, r in enumerate(requests) if i * arrive_every <= step and not r.done]
        chunks = [request.chunk() for request in active]
        if chunks:
            rows = engine.forward(pool.cells, chunks)
            for request, chunk, logits in zip(active, chunks, rows, strict=True):
                request.take(logits, len(chunk.token_ids))
        step += 1


def generate(model, ids: list[int]) -> list[int]:
    made = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=OUTPUT_TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return made[0].tolist()


def test_a_ragged_batch_equals_generate(family) -> None:
    engine, model = load_engine(family), transformers_model(family)
    # Whole and chunked prompts, chunks of one token, and requests that join
    # while others decode: every kind of row meets every other.
    shapes = [(37, 64), (5, 5), (41, 7), (1, 1), (9, 1), (30, 29)]
    pool = PagePool(engine.layout, pages=64, page_tokens=4)
    requests = [Paged(pool, prompt(n, seed=n), chunk) for n, chunk in shapes]
    run(engine, pool, requests, arrive_every=2)
    for request in requests:
        assert request.ids == generate(model, request.ids[: request.prompt_tokens])
        pool.free(request.table)
    pool.check_integrity()
    pool.close()


def test_logits_equal_those_of_transformers(family) -> None:
    engine, model = load_engine(family), transformers_model(family)
    ids = prompt(50)
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0, -1].numpy()
    assert expected.std() > 0.5
    np.testing.assert_allclose(whole(engine, ids), expected, atol=TOLERANCE)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 32, 49])
def test_chunked_prefill_equals_whole_prefill(engine, chunk_tokens: int) -> None:
    ids = prompt(50)
    cells = np.zeros(engine.layout.shape(50), np.float32)
    for start in range(0, 50, chunk_tokens):
        end = min(start + chunk_tokens, 50)
        chunk = Chunk(ids[start:end], range(start, end), slice(0, end))
        logits = engine.forward(cells, [chunk])[0]
    expected = np.zeros_like(cells)
    engine.forward(expected, [Chunk(ids, range(50), slice(0, 50))])
    np.testing.assert_allclose(cells, expected, atol=TOLERANCE)
    np.testing.assert_allclose(logits, whole(engine, ids), atol=TOLERANCE)


def test_kept_tokens_of_a_refined_prompt_keep_their_positions(engine, llama) -> None:
    ids, positions = prompt(20), [*range(5), *range(40, 50), *range(90, 95)]
    with torch.inference_mode():
        expected = transformers_model(llama)(
            torch.tensor([ids]),
            # Without a mask, transformers takes a gap for the start of another text.
            attention_mask=torch.ones(1, 20, dtype=torch.long),
            position_ids=torch.tensor([positions]),
        ).logits[0, -1]
    cells = np.zeros(engine.layout.shape(20), np.float32)
    engine.forward(cells, [Chunk(ids[:12], positions[:12], slice(0, 12))])
    logits = engine.forward(cells, [Chunk(ids[12:], positions[12:], slice(0, 20))])[0]
    np.testing.assert_allclose(logits, expected.numpy(), atol=TOLERANCE)
    assert np.abs(logits - whole(engine, ids)).max() > 0.1


def test_only_the_new_cells_are_written(engine) -> None:
    cells = np.full(engine.layout.shape(40), 7, np.float32)
    numbers = np.array([30, 3, 17, 18, 5])
    engine.forward(cells, [Chunk(prompt(3), range(3), numbers[:3]), Chunk([1], [0], slice(9, 10))])
    before = cells.copy()
    engine.forward(cells, [Chunk(prompt(2), range(3, 5), numbers)])
    changed = (cells != before).any(axis=(0, 1, 3, 4))
    assert np.flatnonzero(changed).tolist() == [5, 18]
    assert np.flatnonzero((before != 7).any(axis=(0, 1, 3, 4))).tolist() == [3, 9, 17, 30]


def test_the_same_call_gives_the_same_bits(engine) -> None:
    pool = PagePool(engine.layout, pages=32, page_tokens=4)
    requests = [(n, pool.reserve(20)) for n in (9, 1, 15)]
    runs = []
    for _ in range(2):
        chunks = [Chunk(prompt(n, n), range(n), t.cells(n)) for n, t in requests]
        prefilled = engine.forward(pool.cells, chunks)
        chunks = [Chunk([3], [n], t.cells(n + 1)) for n, t in requests]
        runs.append((prefilled, engine.forward(pool.cells, chunks), pool.cells.copy()))
    for first, second in zip(*runs, strict=True):
        assert first.tobytes() == second.tobytes()
    pool.close()


@pytest.fixture
def pulled(engine, llama):
    """A request prefilled in another process, its KV now in pages here."""
    ids = prompt(33)
    pool, puller = PagePool(engine.layout, pages=24, page_tokens=4), KvPuller()
    with RemoteSender("shm", engine.layout) as sender:
        ticket = sender.prefilled_ticket(llama, ids)
        assert ticket.pid == sender.pid
        other, table = pool.reserve(10), pool.reserve(33 + OUTPUT_TOKENS)
        puller.pull(ticket, engine.layout, pool.cells, table.cells(33), digest="full")
    yield ids, pool, table
    puller.close()
    for each in (other, table):
        pool.free(each)
    pool.check_integrity()
    pool.close()


def test_prefill_and_decode_in_two_processes_equal_one(engine, llama, pulled) -> None:
    ids, pool, table = pulled
    expected = generate(transformers_model(llama), ids)
    out = [*ids, expected[len(ids)]]  # the first token is the prefill worker's
    while len(out) < len(expected):
        chunk = Chunk(out[-1:], [len(out) - 1], table.cells(len(out)))
        out.append(int(engine.forward(pool.cells, [chunk])[0].argmax()))
    assert out == expected


def test_a_corrupted_page_changes_the_logits(engine, pulled) -> None:
    ids, pool, table = pulled
    chunk = Chunk([1], [33], table.cells(34))
    expected = engine.forward(pool.cells, [chunk])[0]
    np.testing.assert_allclose(expected, whole(engine, [*ids, 1]), atol=TOLERANCE)
    page = table.cells(33)[12:16]
    pool.cells[:, :, page] = pool.cells[:, :, page[::-1]] * 2
    assert np.abs(engine.forward(pool.cells, [chunk])[0] - expected).max() > 100 * TOLERANCE


def test_bfloat16_cells_are_its_bits_in_uint16(llama) -> None:
    engine = load_engine(llama, dtype="bfloat16")
    assert (engine.layout.dtype, engine.layout.storage_dtype) == ("bfloat16", np.uint16)
    assert engine.identity.numerics == "bf16"
    ids = prompt(30)
    pool = PagePool(engine.layout, pages=16, page_tokens=4)
    table = pool.reserve(30)
    engine.forward(pool.cells, [Chunk(ids[:29], range(29), table.cells(29))])
    logits = engine.forward(pool.cells, [Chunk(ids[29:], [29], table.cells(30))])[0]
    with torch.inference_mode():
        expected = transformers_model(llama, torch.bfloat16)(torch.tensor([ids])).logits[0, -1]
    assert logits.dtype == np.float32
    # Eight bits of mantissa, two layers: a few percent of the spread.
    np.testing.assert_allclose(logits, expected.float().numpy(), atol=0.1 * float(expected.std()))
    pool.close()


ONE = slice(0, 1)


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        ([], InternalError, "at least one chunk"),
        ([Chunk([VOCAB_SIZE], [0], ONE)], InvalidRequest, "token id 320 lies outside .* 0..319"),
        ([Chunk([-1], [0], ONE)], InvalidRequest, "token id -1"),
        ([Chunk([1], [256], ONE)], ContextTooLong, "position 256 lies outside the context of 256"),
        ([Chunk([1], [-1], ONE)], InternalError, "not ascending"),
        ([Chunk([1, 1], [3, 3], slice(0, 2))], InternalError, "not ascending"),
        ([Chunk([], [], ONE)], InternalError, "at least one"),
        ([Chunk([1, 1], [0], slice(0, 2))], InternalError, "as many positions as ids"),
        ([Chunk([1, 1], [0, 1], ONE)], InternalError, "no more than there are cells"),
        ([Chunk([1], [0], slice(8, 9))], InternalError, "outside the 8 cells"),
        ([Chunk([1], [0], slice(0, 4, 2))], InternalError, "is no run of cells"),
        ([Chunk([1], [0], np.array([-1]))], InternalError, "outside the 8 cells"),
        ([Chunk([1], [0], ONE), Chunk([1], [0], ONE)], InternalError, "share a cell"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(engine, chunks, error, message) -> None:
    cells = np.zeros(engine.layout.shape(8), np.float32)
    with pytest.raises(error, match=message):
        engine.forward(cells, chunks)
    assert not cells.any()


def test_cells_of_another_kind_are_refused(engine) -> None:
    good = np.zeros(engine.layout.shape(4), np.float32)
    readonly = good.view()
    readonly.flags.writeable = False
    for cells in (good[:1], good.astype(np.float64), readonly, good[0]):
        with pytest.raises(InternalError, match="expected"):
            engine.forward(cells, [Chunk([1], [0], ONE)])
