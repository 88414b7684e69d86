"""A model at its start: a stored profile is used, a measured one is kept when asked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from segue_device import DeviceModel, DeviceProfile
from segue_device.engines import load_engine
from segue_device.learning import Seen
from segue_device.profile_store import ProfileKey, find_profile, store_profile
from segue_protocol.errors import InvalidRequest
from tests.processes import device_model

STORED = DeviceProfile(0.5, 0.25, 0.125, 0.75, 0.02)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGUE_DATA_DIR", str(tmp_path))
    return tmp_path


def key(**options: int) -> ProfileKey:
    engine = load_engine(device_model(), **options)
    engine.close()
    return ProfileKey.of(engine, options)


def loaded_profile(**arguments: object) -> DeviceProfile:
    async def main() -> DeviceProfile:
        model = await DeviceModel.load(device_model(), **arguments)
        await model.runner.close()
        return model.profile

    return asyncio.run(main())


def test_a_stored_profile_is_used_for_the_same_options_only() -> None:
    store_profile(key(chunk_tokens=64), STORED)
    assert loaded_profile(chunk_tokens=64) == STORED
    assert loaded_profile(chunk_tokens=64, max_context_tokens=512) == STORED
    assert loaded_profile() != STORED
    given = DeviceProfile(0.0, 1.0, 0.0, 1.0, 0.0)
    assert loaded_profile(chunk_tokens=64, profile=given) == given


def test_a_measured_profile_is_kept_when_asked(directory: Path) -> None:
    measured = loaded_profile()
    measured.validate()
    assert list(directory.iterdir()) == []
    kept = loaded_profile(keep_profile=True)
    assert find_profile(key()) == kept
    assert loaded_profile() == kept


def test_a_profile_that_cannot_be_kept_is_an_error(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "file").write_text("")
    monkeypatch.setenv("SEGUE_DATA_DIR", str(directory / "file"))
    with pytest.raises(InvalidRequest, match="cannot write a profile"):
        loaded_profile(keep_profile=True)


def learnt_profile(**arguments: object) -> DeviceProfile:
    async def main() -> DeviceProfile:
        model = await DeviceModel.load(device_model(), chunk_tokens=64, **arguments)
        await model.learn(Seen())
        await model.learn(Seen(prefill=1.1, decode=0.9))
        await model.runner.close()
        return model.profile

    return asyncio.run(main())


def test_a_stored_profile_follows_what_answers_take() -> None:
    store_profile(key(chunk_tokens=64), STORED)
    learnt = learnt_profile()
    assert learnt.prefill_per_token_s > STORED.prefill_per_token_s
    assert learnt.decode_s < STORED.decode_s
    assert loaded_profile(chunk_tokens=64) == learnt


def test_what_is_not_stored_is_not_written_and_what_is_given_not_learnt(directory: Path) -> None:
    learnt_profile()
    assert list(directory.iterdir()) == []
    store_profile(key(chunk_tokens=64), STORED)
    given = DeviceProfile(0.0, 1.0, 0.0, 1.0, 0.0)
    assert learnt_profile(profile=given) == given
    assert loaded_profile(chunk_tokens=64) == STORED


def test_an_answer_does_not_fail_for_a_profile_that_cannot_be_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_profile(key(chunk_tokens=64), STORED)

    async def main() -> DeviceProfile:
        model = await DeviceModel.load(device_model(), chunk_tokens=64)
        (directory / "file").write_text("")
        monkeypatch.setenv("SEGUE_DATA_DIR", str(directory / "file"))
        await model.learn(Seen(prefill=1.1))
        await model.runner.close()
        return model.profile

    assert asyncio.run(main()) != STORED
