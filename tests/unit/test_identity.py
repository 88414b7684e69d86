"""Which differences between two models forbid a shared log, and which only warn."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segue_protocol.errors import IdentityMismatch, InvalidRequest, NotFound, Unsupported
from segue_protocol.identity import (
    Comparison,
    ModelIdentity,
    compare,
    exactness_level,
    require_shared_log,
)
from tests.unit.model_directory import byte_level_tokenizer, write_model

OURS = ModelIdentity(
    model="ours",
    vocab_size=320,
    vocabulary_digest=b"v" * 32,
    special_token_ids=(9, 8),
    stop_token_ids=(8,),
    merges_digest=b"m" * 32,
    template_digest=b"t" * 32,
    weights_digest=b"w" * 32,
    numerics="fp32",
)


def test_identity_survives_the_wire() -> None:
    assert ModelIdentity.from_wire(OURS.to_wire()) == OURS
    assert OURS.special_token_ids == (8, 9)


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="merges_digest has 3 bytes"):
        replace(OURS, merges_digest=b"abc")


@pytest.mark.parametrize(
    "same", [{"model": "x"}, {"vocab_size": 512}, {"weights_digest": b""}, {"numerics": "q4_0"}]
)
def test_padding_weights_and_numerics_do_not_matter(same: dict[str, Any]) -> None:
    assert compare(OURS, replace(OURS, **same)) == Comparison((), ())


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"vocabulary_digest": b"x" * 32}, "vocabulary differs"),
        ({"vocabulary_digest": b""}, "vocabulary digest of 'ours' is missing"),
        ({"special_token_ids": (8,)}, r"special token ids differ.*\[9\]"),
        ({"stop_token_ids": (8, 9)}, r"stop token ids differ.*\[9\]"),
    ],
)
def test_what_changes_the_meaning_of_ids_is_fatal(change: dict[str, Any], factor: str) -> None:
    with pytest.raises(IdentityMismatch, match=factor) as caught:
        require_shared_log(OURS, replace(OURS, **change))
    assert caught.value.reason == "TOKENIZER_MISMATCH"


@pytest.mark.parametrize("part", ["merges", "template"])
def test_what_changes_only_prompt_ids_warns(part: str) -> None:
    warnings = require_shared_log(OURS, replace(OURS, **{f"{part}_digest": b""}))
    assert len(warnings) == 1
    assert part in warnings[0]


@pytest.mark.parametrize(
    ("change", "level"),
    [({}, 2), ({"numerics": "bf16"}, 3), ({"weights_digest": b"x" * 32}, 3)],
)
def test_exactness_level(change: dict[str, Any], level: int) -> None:
    assert exactness_level(OURS, replace(OURS, **change)) == level
    unknown = replace(OURS, weights_digest=b"")
    assert exactness_level(unknown, unknown) == 3


def test_from_directory_reads_everything(tmp_path: Path) -> None:
    found = ModelIdentity.from_directory(write_model(tmp_path / "tiny"), numerics="fp32")
    assert (found.model, found.vocab_size, found.stop_token_ids) == ("tiny", 320, (262,))
    assert found.special_token_ids == (262, 263, 264, 265)
    assert found.weights_digest == hashlib.sha256(b"firstsecond").digest()
    assert found.merges_digest
    assert found.template_digest


def test_from_directory_takes_a_given_weights_digest(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    for path in directory.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(NotFound, match="safetensors"):
        ModelIdentity.from_directory(directory, numerics="fp32")
    given = ModelIdentity.from_directory(directory, numerics="fp32", weights_digest=b"")
    assert given.weights_digest == b""


def test_template_in_its_own_file_wins_and_stop_ids_fall_back(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    (directory / "chat_template.jinja").write_text("other")
    (directory / "generation_config.json").unlink()
    found = ModelIdentity.from_directory(directory, numerics="fp32")
    assert found.template_digest == hashlib.sha256(b"other").digest()
    assert found.stop_token_ids == (1,)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    directory = write_model(tmp_path)
    (directory / "generation_config.json").write_text('{"eos_token_id": 1}')
    for content in ("{", "[]", "{}"):
        (directory / name).write_text(content)
        with pytest.raises(InvalidRequest, match=name.replace(".", r"\.")):
            ModelIdentity.from_directory(directory, numerics="fp32")
    (directory / name).unlink()
    with pytest.raises(NotFound, match=name.replace(".", r"\.")):
        ModelIdentity.from_directory(directory, numerics="fp32")


def test_without_stop_ids_no_model(tmp_path: Path) -> None:
    directory = write_model(tmp_path)
    (directory / "generation_config.json").write_text('{"eos_token_id": null}')
    (directory / "config.json").write_text('{"vocab_size": 9}')
    with pytest.raises(NotFound, match="eos_token_id"):
        ModelIdentity.from_directory(directory, numerics="fp32")


def test_merges_are_the_same_in_both_spellings_and_differ_when_changed(tmp_path: Path) -> None:
    spec = byte_level_tokenizer()
    spec["model"]["merges"] = [list(merge) for merge in spec["model"]["merges"]]
    first = ModelIdentity.from_directory(write_model(tmp_path, spec), numerics="")
    spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    second = ModelIdentity.from_directory(write_model(tmp_path, spec), numerics="")
    spec["model"]["merges"].reverse()
    third = ModelIdentity.from_directory(write_model(tmp_path, spec), numerics="")
    assert first == second
    assert compare(first, third).fatal == ()
    assert len(compare(first, third).warnings) == 1


def test_a_tokenizer_without_bytes_is_unsupported(tmp_path: Path) -> None:
    spec = byte_level_tokenizer() | {"decoder": {"type": "WordPiece"}}
    with pytest.raises(Unsupported, match="WordPiece"):
        ModelIdentity.from_directory(write_model(tmp_path, spec), numerics="")
    assert json.loads((tmp_path / "tokenizer.json").read_text())["decoder"]
