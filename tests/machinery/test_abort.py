"""Abort in every state of both sides: everything held comes back, nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from segue_cloud.gateway.session import Session
from segue_cloud.gateway.state import RequestState
from segue_device import (
    AsyncClient,
    Done,
    Event,
    FinishReason,
    Mode,
    PrefillProgress,
    Reconnecting,
    Result,
    Resumed,
    Sampling,
    Started,
    Takeover,
    Token,
)
from segue_device.answer import Answer
from segue_device.state import DeviceState
from segue_device.transports.delayed import DelayedTransport
from segue_protocol.errors import SegueError
from segue_protocol.wire import public
from tests.faulty_transport import Fault, FaultyTransport
from tests.harness import (
    Cloud,
    reference_answer,
    reference_client,
    reference_cloud,
    reference_device,
)
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"A prompt of a moderate length, so that prefill takes a while. " * 4)
SAMPLING = Sampling(temperature=0.8, seed=3, logit_bias={256: -100.0})  # no early end
S, D = RequestState, DeviceState

# How an answer has to run to pass through a state: mode and fixed credit.
CLOUD_STATES = [each for each in RequestState if each is not S.FINISHED]
DEVICE_STATES = {
    D.CONNECTING: Mode.SPLIT,
    D.CLOUD: Mode.SPLIT,
    D.CATCHING_UP: Mode.SPLIT,
    D.DEVICE: Mode.SPLIT,
    D.RECONNECTING: Mode.SPLIT,
    D.CLOUD_ONLY: Mode.ONLY_IN_CLOUD,
    D.DEVICE_ONLY: Mode.ONLY_ON_DEVICE,
}


async def _settle(cloud: Cloud) -> None:
    """Give leases and lost streams the (virtual) time they are entitled to."""
    await asyncio.sleep(60)
    cloud.check_idle()


async def _answer(cloud: Cloud, mode: Mode, credit: int | None = None) -> Result:
    async with reference_device(cloud) as device:
        stream = device.client.stream(
            prompt_token_ids=PROMPT,
            sampling=SAMPLING,
            max_tokens=40,
            mode=mode,
            credit_through=credit,
        )
        async with stream as answer:
            return await answer.final()


def _on_entering(
    monkeypatch: pytest.MonkeyPatch, owner: type, state: object, act: Callable[[object], None]
) -> list[object]:
    """Run `act` the first time an object of `owner` enters `state`, synchronously."""
    seen: list[object] = []
    original = owner.enter

    def enter(self: object, new: object) -> None:
        original(self, new)
        if new is state and not seen:
            seen.append(self)
            act(self)

    monkeypatch.setattr(owner, "enter", enter)
    return seen


@pytest.mark.parametrize("state", CLOUD_STATES, ids=lambda state: state.name)
def test_cancel_in_every_cloud_state(state: RequestState, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _on_entering(
        monkeypatch, Session, state, lambda session: session.finish(public.FINISH_REASON_CANCELLED)
    )

    async def main() -> None:
        async with reference_cloud() as cloud:
            # The device goes on alone: the cloud ended without its consent.
            if state is S.WAITING:
                asyncio.get_running_loop().call_soon(_cancel_first_session, cloud)
            result = await _answer(cloud, Mode.SPLIT, credit=8)
            assert result.finish_reason is FinishReason.LENGTH
            assert len(result.token_ids) == 40
            await _settle(cloud)

    run_virtual(main())
    assert seen or state is S.WAITING


def _cancel_first_session(cloud: Cloud) -> None:
    """Every session begins WAITING, before `enter` is ever called."""
    sessions = list(cloud.gateway.sessions)
    if not sessions:
        asyncio.get_running_loop().call_soon(_cancel_first_session, cloud)
        return
    assert sessions[0].state is S.WAITING
    sessions[0].finish(public.FINISH_REASON_CANCELLED)


@pytest.mark.parametrize("state", DEVICE_STATES, ids=lambda state: state.name)
def test_cancel_in_every_device_state(state: DeviceState, monkeypatch: pytest.MonkeyPatch) -> None:
    first = state in (D.CONNECTING, D.DEVICE_ONLY)
    seen = _on_entering(
        monkeypatch, Answer, state, lambda answer: answer.end(FinishReason.CANCELLED)
    )

    async def main() -> None:
        async with reference_cloud() as cloud:
            faults = [Fault(responses=3)] if state is D.RECONNECTING else []
            async with reference_client(FaultyTransport(cloud.transport(), faults)) as client:
                stream = client.stream(
                    prompt_token_ids=PROMPT,
                    sampling=SAMPLING,
                    max_tokens=40,
                    mode=DEVICE_STATES[state],
                )
                async with stream as answer:
                    if first:
                        answer.cancel()
                    result = await answer.final()
                assert result.finish_reason is FinishReason.CANCELLED
                assert len(result.token_ids) < 40
                await _settle(cloud)
                await _serves_the_next_answer(client)

    run_virtual(main())
    assert seen or first


async def _serves_the_next_answer(client: AsyncClient) -> None:
    stream = client.stream(prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=10)
    async with stream as answer:
        assert (await answer.final()).token_ids == reference_answer(PROMPT, SAMPLING, 10).ids


class _AppError(Exception):
    """The app's own."""


@pytest.mark.parametrize("how", ["cancel", "leave", "raise"])
def test_cancel_at_every_event(how: str) -> None:
    """Of an answer that is dropped, resumed and taken over; nothing comes after it."""
    whole = reference_answer(PROMPT, SAMPLING, 20).ids
    kinds: set[type] = set()

    async def cancelled_at(place: int, cloud: Cloud) -> bool:
        """False when the answer is over before."""
        transport = FaultyTransport(cloud.transport(), [Fault(responses=4)])
        seen: list[Event] = []
        async with reference_client(transport) as client:
            stream = client.stream(prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=20)
            with contextlib.suppress(_AppError):
                async with stream as answer:
                    async for event in answer:
                        seen.append(event)
                        if len(seen) - 1 != place:
                            continue
                        if how == "raise":
                            raise _AppError
                        if how == "leave":
                            break
                        answer.cancel()
            kinds.update(map(type, seen))
            tokens = [each for each in seen if isinstance(each, Token) and each.index is not None]
            ids = tuple(token.token_id for token in tokens)
            assert ids == whole[: len(ids)]
            if how == "cancel":
                assert isinstance(seen[-1], Done)
                result = seen[-1].result
                assert result.token_ids == ids
                assert result.finish_reason is FinishReason.CANCELLED or ids == whole
            await _settle(cloud)
            await _serves_the_next_answer(client)
        return len(seen) > place

    async def main() -> None:
        async with reference_cloud(step_s=0.03) as cloud:
            place = 0
            while await cancelled_at(place, cloud):
                place += 1

    run_virtual(main())
    assert kinds >= {Started, PrefillProgress, Token, Reconnecting, Resumed, Takeover}


def test_cancel_from_a_timer_at_any_moment() -> None:
    """Between two events too, and from where no task is running."""
    whole = reference_answer(PROMPT, SAMPLING, 20).ids

    async def main() -> None:
        async with reference_cloud(step_s=0.03) as cloud:
            for moment in range(75):
                transport = FaultyTransport(cloud.transport(), [Fault(responses=4)])
                async with reference_client(transport) as client:
                    stream = client.stream(
                        prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=20
                    )
                    async with stream as answer:
                        asyncio.get_running_loop().call_later(moment * 0.02, answer.cancel)
                        result = await answer.final()
                assert result.token_ids == whole[: len(result.token_ids)]
                cancelled = result.finish_reason is FinishReason.CANCELLED
                assert cancelled or result.token_ids == whole
                assert cancelled or moment > 20
                await _settle(cloud)

    run_virtual(main())


@pytest.mark.parametrize("state", CLOUD_STATES, ids=lambda state: state.name)
@pytest.mark.parametrize("mode", [Mode.SPLIT, Mode.ONLY_IN_CLOUD], ids=lambda mode: mode.value)
def test_cut_network_in_every_cloud_state(
    state: RequestState, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Split goes on alone with the right tokens; cloud-only fails with what it had."""
    whole: list[Result] = []

    async def main() -> None:
        async with reference_cloud() as cloud:
            whole.append(await _answer(cloud, Mode.ONLY_ON_DEVICE))
            transport = DelayedTransport(cloud.transport(), 0.04)

            def cut(_: object) -> None:
                asyncio.get_running_loop().create_task(transport.cut())

            seen = _on_entering(monkeypatch, Session, state, cut)
            async with reference_client(transport) as client:
                stream = client.stream(
                    prompt_token_ids=PROMPT,
                    sampling=SAMPLING,
                    max_tokens=40,
                    mode=mode,
                    credit_through=8 if mode is Mode.SPLIT else None,
                )
                if state is S.WAITING:
                    asyncio.get_running_loop().call_later(0.021, cut, None)
                async with stream as answer:
                    if mode is Mode.SPLIT:
                        result = await answer.final()
                        assert result.token_ids == whole[0].token_ids
                    elif state is not S.PARKED:
                        with pytest.raises(SegueError) as failed:
                            await answer.final()
                        partial = tuple(failed.value.partial)
                        assert partial == whole[0].token_ids[: len(partial)]
                    else:
                        assert (await answer.final()).token_ids == whole[0].token_ids
            assert seen or state is S.WAITING or (mode, state) == (Mode.ONLY_IN_CLOUD, S.PARKED)
            await _settle(cloud)

    run_virtual(main())
