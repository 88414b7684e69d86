"""Modes at work: standby, fallback, and a cloud that is never asked."""

from __future__ import annotations

import pytest

from segue_device import Mode, Result, Sampling
from segue_device.transports.base import CloudStream
from segue_protocol.errors import InvalidRequest
from segue_protocol.wire import public
from tests.faulty_transport import Fault, FaultyTransport
from tests.harness import Cloud, reference_client, reference_cloud
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"Where does this answer run? ")
SAMPLING = Sampling(temperature=0.9, seed=2, logit_bias={256: -100.0})


class ForbiddenTransport:
    """Nobody may open this."""

    async def open(self, *, anew: bool = False) -> CloudStream:
        raise AssertionError("the cloud was asked")

    async def get_model(self, request: public.GetModelRequest) -> public.GetModelResponse:
        raise AssertionError("the cloud was asked")

    async def aclose(self) -> None:
        pass


async def _answer(transport: object, mode: Mode) -> Result:
    async with reference_client(transport) as client:
        stream = client.stream(prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=20, mode=mode)
        async with stream as answer:
            return await answer.final()


async def _whole(cloud: Cloud) -> Result:
    return await _answer(cloud.transport(), Mode.ONLY_ON_DEVICE)


def test_the_device_on_standby_does_nothing_while_the_cloud_writes() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            result = await _answer(cloud.transport(), Mode.PREFER_IN_CLOUD)
            assert result.usage.cloud_tokens == 20
            assert result.takeover_index is None
            assert result.token_ids == (await _whole(cloud)).token_ids

    run_virtual(main())


@pytest.mark.parametrize("after", [0, 1, 6])
def test_the_device_on_standby_goes_on_when_the_cloud_is_lost(after: int) -> None:
    async def main() -> None:
        async with reference_cloud(step_s=0.02) as cloud:
            fault = Fault(responses=after)
            transport = FaultyTransport(cloud.transport(), [fault], afterwards=Fault(responses=0))
            result = await _answer(transport, Mode.PREFER_IN_CLOUD)
            assert result.token_ids == (await _whole(cloud)).token_ids
            assert result.usage.device_tokens > 0

    run_virtual(main())


@pytest.mark.parametrize("mode", [Mode.ONLY_ON_DEVICE, Mode.PREFER_ON_DEVICE])
def test_a_device_answer_asks_no_cloud(mode: Mode) -> None:
    result = run_virtual(_answer(ForbiddenTransport(), mode))
    assert result.usage.device_tokens == 20


def test_the_users_no_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_NO_CLOUD", "1")
    result = run_virtual(_answer(ForbiddenTransport(), Mode.SPLIT))
    assert result.usage.device_tokens == 20


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'everywhere'"):
        run_virtual(_answer(ForbiddenTransport(), "everywhere"))  # type: ignore[arg-type]
