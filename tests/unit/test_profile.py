"""Measuring a device whose speed is known: the reference engine on the virtual clock."""

from __future__ import annotations

import anyio
import pytest

from segue_device import DeviceProfile
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.engines.runner import InlineRunner
from segue_device.profile import HANDOVER_S, Measurement, measure_profile
from segue_protocol.errors import ContextTooLong
from tests.harness import device_cost
from tests.virtual_clock import run_virtual

CHUNK = 256
PHONE = DeviceProfile(0.01, 1 / 800, 2e-7, 0.05, HANDOVER_S)
SERVER = DeviceProfile(0.001, 1e-5, 1e-9, 0.002, HANDOVER_S)
SLOW = DeviceProfile(0.0, 0.05, 0.0, 0.4, HANDOVER_S)


def measured(
    profile: DeviceProfile, *, context: int = 4096, chunk: int = CHUNK, **options: float
) -> tuple[Measurement, float, list[float]]:
    """What is found, the seconds it took, and the progress that was told."""
    told: list[float] = []

    async def main() -> tuple[Measurement, float]:
        runner = InlineRunner(
            ReferenceDeviceEngine(max_context_tokens=context, chunk_tokens=chunk),
            device_cost(profile),
        )
        found = await measure_profile(
            runner, clock=anyio.current_time, on_progress=told.append, **options
        )
        assert len(runner.cells) == 0
        return found, anyio.current_time()

    found, took_s = run_virtual(main())
    return found, took_s, told


def test_finds_the_profile_of_an_emulated_phone() -> None:
    found, _, _ = measured(PHONE, budget_s=10)
    assert found.profile.prefill_base_s == pytest.approx(0.01, rel=1e-3)
    assert found.profile.prefill_per_token_s == pytest.approx(1 / 800, rel=1e-3)
    assert found.profile.prefill_per_token2_s == pytest.approx(2e-7, rel=1e-2)
    assert found.profile.decode_s == pytest.approx(0.05)
    assert found.profile.handover_s == HANDOVER_S
    assert found.fit_error < 1e-4
    assert found.seconds_by_tokens[1024] == pytest.approx(PHONE.prefill_s(1024))


def test_at_start_it_takes_about_a_second_and_several_lengths() -> None:
    found, took_s, told = measured(PHONE)
    assert took_s < 1.5
    assert list(found.seconds_by_tokens) == [32, 64, 128]
    assert found.profile.prefill_s(1000) == pytest.approx(PHONE.prefill_s(1000), rel=0.02)
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_fast_device_is_measured_over_its_context() -> None:
    found, took_s, _ = measured(SERVER)
    assert list(found.seconds_by_tokens) == [32, 64, 128, 256, 512, 1024, 2048]
    assert took_s < 1
    longer, _, _ = measured(SERVER, context=10_000)
    assert max(longer.seconds_by_tokens) == 8192


def test_a_slow_device_is_measured_at_two_lengths_at_least() -> None:
    found, _, _ = measured(SLOW)
    assert list(found.seconds_by_tokens) == [32, 64]
    assert found.profile.prefill_per_token_s == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize(("context", "longest"), [(9, 1), (12, 4), (40, 32), (300, 256)])
def test_a_short_context_bounds_the_lengths(context: int, longest: int) -> None:
    found, _, _ = measured(SERVER, context=context)
    assert max(found.seconds_by_tokens) == longest
    found.profile.validate()


def test_a_chunk_of_one_token() -> None:
    found, _, _ = measured(SERVER, context=64, chunk=1)
    assert list(found.seconds_by_tokens) == [1, 2, 4, 8, 16, 32]


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(ContextTooLong, match="expected more than 8"):
        measured(SERVER, context=8)
