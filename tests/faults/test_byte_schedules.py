"""Real sockets that break or fall silent at any byte: the ids are those of a quiet network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from segue_cloud.gateway.gateway import GatewayLimits
from segue_device import DeviceProfile, Event, Mode, Pacing, Reconnecting, Resumed, Started
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.engines.runner import InlineRunner
from segue_device.generation import Generation
from segue_device.request import AnswerRequest
from segue_device.transports.base import Transport
from segue_protocol.errors import SegueError
from segue_protocol.reference import STOP_ID, reference_identity
from tests.byte_proxy import ByteFault, Proxy
from tests.contract.transports import PROMPT, SAMPLING, Rig, rig, run
from tests.harness import device_cost, reference_answer

LENGTH, CREDIT = 16, 12
EXPECTED = reference_answer(PROMPT, SAMPLING, LENGTH).ids
LIMITS = GatewayLimits(heartbeat_s=0.1, unclaimed_s=1.0)
# Several heartbeats. A slow machine may exceed it: then one more stream is resumed.
SHORT_SILENCE_S = 0.5
LONG_SILENCE_S = 10.0
PIECES = (1, 3, 200)
AT_ONCE = 12  # answers; they mostly wait

both_wires = pytest.mark.parametrize("kind", ["grpc", "websocket"])
both_modes = pytest.mark.parametrize(
    "mode", [Mode.SPLIT, Mode.ONLY_IN_CLOUD], ids=lambda mode: mode.value
)


@dataclass
class Outcome:
    """What came of an answer."""

    events: list[Event] = field(default_factory=list)
    ids: tuple[int, ...] = ()
    error: SegueError | None = None

    def saw(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.events)


async def _answer(
    transport: Transport,
    mode: Mode,
    *,
    prefill_s: float = 0.3,
    silence_limit_s: float = LONG_SILENCE_S,
) -> Outcome:
    """`prefill_s`: how soon the device would be ready without the cloud."""
    split = mode is Mode.SPLIT
    profile = DeviceProfile(prefill_s, 0.0, 0.0, 0.001, 0.0)
    request = AnswerRequest(
        request_id="test",
        prompt_ids=PROMPT,
        sampling=replace(SAMPLING, stop_token_ids=(STOP_ID,)),
        max_tokens=LENGTH,
        identity=reference_identity(),
        profile=profile,
        credit_through=CREDIT if split else LENGTH,
    )
    outcome = Outcome()
    generation = Generation(
        request,
        outcome.events.append,
        runner=InlineRunner(ReferenceDeviceEngine(), device_cost(profile)) if split else None,
        transport=transport,
        text=None,
        pacing=Pacing.off(),
        silence_limit_s=silence_limit_s,
    )
    try:
        outcome.ids = tuple((await generation.run()).token_ids)
    except SegueError as error:
        outcome.error = error
        outcome.ids = tuple(error.partial)
    return outcome


@asynccontextmanager
async def _through(
    each: Rig, faults: Sequence[ByteFault] = ()
) -> AsyncIterator[tuple[Transport, Proxy]]:
    async with Proxy(each.port, pieces=PIECES, faults=faults) as proxy:
        transport = each.transport(proxy.port)
        yield transport, proxy
        await transport.aclose()


async def _undisturbed(each: Rig, mode: Mode) -> dict[str, int]:
    """Bytes up and down of a whole answer."""
    async with _through(each) as (transport, proxy):
        assert (await _answer(transport, mode)).ids == EXPECTED
        return proxy.connections[0].passed


async def _sweep(each: Rig, mode: Mode, faults: Sequence[ByteFault]) -> list[Outcome]:
    """An answer through each fault."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(fault: ByteFault) -> Outcome:
        async with free, _through(each, [fault]) as (transport, _):
            if not fault.frozen:
                return await _answer(transport, mode)
            # The device is ready only after a resume.
            return await _answer(transport, mode, prefill_s=1.5, silence_limit_s=SHORT_SILENCE_S)

    return await asyncio.gather(*map(one, faults))


def _check(outcome: Outcome, mode: Mode, fault: ByteFault) -> None:
    """Only what the cloud had not begun may fail, and only where there is no device."""
    if outcome.error is None:
        assert outcome.ids == EXPECTED, fault
    else:
        assert mode is Mode.ONLY_IN_CLOUD, (fault, outcome.error)
        assert outcome.error.retryable, (fault, outcome.error)
        assert not outcome.saw(Started), (fault, outcome.error)


@both_wires
@both_modes
@pytest.mark.parametrize(("frozen", "steps"), [(False, 40), (True, 10)], ids=["cut", "frozen"])
def test_a_break_at_any_byte(kind: str, mode: Mode, frozen: bool, steps: int) -> None:
    """Evenly over both directions, from the first byte to the last."""

    async def main() -> None:
        async with rig(kind, step_s=0.005, limits=LIMITS) as each:
            passed = await _undisturbed(each, mode)
            faults = [
                ByteFault(frozen=frozen, **{way: total * step // steps})
                for way, total in passed.items()
                for step in range(steps + 1)
            ]
            outcomes = await _sweep(each, mode, faults)
            for fault, outcome in zip(faults, outcomes, strict=True):
                _check(outcome, mode, fault)
            # A device that is ready first takes over instead; without one it must be a resume.
            needed = (Started, Reconnecting, Resumed) if mode is Mode.ONLY_IN_CLOUD else (Started,)
            for event in needed:
                assert any(outcome.saw(event) for outcome in outcomes), event

    run(main())


@both_wires
def test_a_network_that_comes_back_after_many_refusals(kind: str) -> None:
    async def main() -> None:
        async with rig(kind, step_s=0.005, limits=LIMITS) as each:
            passed = await _undisturbed(each, Mode.ONLY_IN_CLOUD)
            cut = ByteFault(down=passed["down"] * 3 // 4)
            refusals = [ByteFault(refused=True)] * 5
            async with _through(each, [cut, *refusals]) as (transport, proxy):
                outcome = await _answer(transport, Mode.ONLY_IN_CLOUD)
                assert outcome.ids == EXPECTED, outcome.error
                assert outcome.saw(Resumed)
                assert len(proxy.connections) >= 7

    run(main())
