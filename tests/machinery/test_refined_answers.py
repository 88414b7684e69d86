"""An answer whose prompt the cloud refines, from the asking to the last token."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from segue_cloud.refine.refiner import Refiner
from segue_cloud.watch.base import Watches
from segue_cloud.watch.metrics import Metrics
from segue_device import DeviceProfile, Event, Mode, Refinement, Sampling, Source, Token
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_protocol.errors import InvalidRequest, Unsupported
from segue_protocol.streams import LocalStream
from segue_protocol.wire import public
from tests.faulty_transport import Fault, FaultyTransport
from tests.harness import PROFILE, Cloud, reference_answer, reference_cloud, reference_device
from tests.machinery.test_proofs import start_message
from tests.machinery.test_refinement import teacher_forced
from tests.machinery.test_watch import Records, scrape
from tests.virtual_clock import run_virtual

TEXT = "Much of what is said here could be left out without any loss. Ünïcödé! " * 5
PROMPT = tuple(TEXT.encode())
SAMPLING = Sampling(logit_bias={256: -100.0})
LENGTH = 20
CREDIT = 6
GUARDED = 36  # the first four, the last 32
FAST = DeviceProfile(0.0, 1e-6, 0.0, 0.05, 0.02)


async def _answer(
    cloud: Any, *, profile: DeviceProfile = PROFILE, **options: Any
) -> tuple[list[Event], list[int]]:
    """The events, and the prompt's positions in the device's cache at the end."""
    engine = ReferenceDeviceEngine(chunk_tokens=64)
    async with reference_device(cloud, engine=engine, profile=profile) as device:
        request = {
            "prompt_token_ids": PROMPT,
            "sampling": SAMPLING,
            "max_tokens": LENGTH,
            "credit_through": CREDIT,
            "keep_ratio": 0.5,
        }
        async with device.client.stream(**{**request, **options}) as answer:
            seen = [event async for event in answer]
        return seen, [position for position, _ in engine.cells if position < len(PROMPT)]


def _only(seen: list[Event], kind: type[Any]) -> Any:
    (event,) = [each for each in seen if isinstance(each, kind)]
    return event


@pytest.mark.parametrize(
    "options", [{}, {"one_pool": True}, {"aggregated_workers": 1}], ids=["p-d", "one pool", "one"]
)
def test_the_head_is_the_clouds_and_the_tail_follows_from_what_was_kept(
    options: dict[str, Any],
) -> None:
    async def main() -> None:
        async with reference_cloud(**options) as cloud:
            seen, cells = await _answer(cloud)
            session = next(iter(cloud.gateway.sessions))
        result = seen[-1].result
        told = _only(seen, Refinement)
        first = next(each for each in seen if isinstance(each, Token))
        assert seen.index(told) < seen.index(first), "the list comes before the first token"
        assert first.source is Source.CLOUD
        assert told.kept_tokens == result.usage.kept_tokens == len(cells) < len(PROMPT)
        assert result.usage.cloud_tokens == result.takeover_index == CREDIT

        whole = reference_answer(PROMPT, SAMPLING, LENGTH).ids
        assert result.token_ids[:CREDIT] == whole[:CREDIT], "the cloud answers the whole prompt"
        ids = [PROMPT[place] for place in cells]
        assert list(result.token_ids) == teacher_forced(
            ids, cells, len(PROMPT), list(whole[:CREDIT]), LENGTH
        )
        assert result.token_ids != whole, "what was left out would have said something else"

        kept = {p for each in session.refinement.message.kept for p in range(each.start, each.end)}
        assert len(kept) == GUARDED + (len(PROMPT) - GUARDED) // 2
        assert kept <= set(cells)
        assert result.cloud.timings.list_s <= result.cloud.timings.prefill_s

    run_virtual(main())


def test_what_was_kept_is_recorded_and_measured() -> None:
    metrics, records = Metrics(), Records()

    async def main() -> None:
        async with reference_cloud(watch=Watches([metrics, records])) as cloud:
            await _answer(cloud)
            await _answer(cloud, keep_ratio=1.0)

    run_virtual(main())
    refined, plain = records.answers
    assert refined.kept_tokens == GUARDED + (len(PROMPT) - GUARDED) // 2
    assert plain.kept_tokens is None
    samples = scrape(metrics.registry)
    labels = {"group": "default", "tenant": ""}
    for name in ("refinement_kept_ratio", "refinement_list_ratio"):
        assert samples(f"{name}_count", **labels) == 1
    share = samples("refinement_kept_ratio_sum", **labels)
    assert share == pytest.approx(refined.kept_tokens / len(PROMPT))


@pytest.mark.parametrize("broken_after", range(2, 8))
def test_a_stream_that_breaks_changes_nothing(broken_after: int) -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            expected, _ = await _answer(cloud)
            transport = FaultyTransport(
                cloud.transport(), [Fault(responses=broken_after, delays_s=(0.02,))]
            )
            seen, cells = await _answer(transport)
            kinds = [
                [each.WhichOneof("message") for each in stream.received]
                for stream in transport.streams
            ]
            assert len(kinds) == 2
            assert kinds[1][:2] == ["started", "refinement"], "state, and told again"
            assert _only(seen, Refinement).kept_tokens == len(cells)
            index = seen[-1].result.takeover_index
            assert seen[-1].result.token_ids[:index] == expected[-1].result.token_ids[:index]

    run_virtual(main())


def _start(**changes: Any) -> public.GenerateRequest:
    message = start_message(LENGTH, CREDIT, PROMPT)
    message.start.keep_ratio = 0.5
    for name, value in changes.items():
        if name == "output_prefix":
            message.start.output_prefix.extend(value)
        elif name == "profile":
            message.start.profile.CopyFrom(value.to_wire())
        elif name == "prompt":
            del message.start.prompt_token_ids.ids[:]
            message.start.prompt_token_ids.ids.extend(value)
        elif name == "credit":
            message.start.credit.through = value
        else:
            setattr(message.start, name, value)
    return message


async def _responses(
    cloud: Cloud, *messages: public.GenerateRequest
) -> list[public.GenerateResponse]:
    """Send all, then read until nothing more comes."""
    stream = LocalStream(cloud.gateway.generate)
    for message in messages:
        asyncio.get_running_loop().create_task(stream.send(message))
    seen: list[public.GenerateResponse] = []
    length = 0
    while length < CREDIT:
        response = await stream.receive()
        assert response is not None
        seen.append(response)
        length = max(length, response.tokens.index + len(response.tokens.ids))
    await stream.send(public.GenerateRequest(cancel=public.Cancel()))
    await stream.aclose()
    return seen


def _refined(seen: list[public.GenerateResponse]) -> int:
    return sum(each.HasField("refinement") for each in seen)


@pytest.mark.parametrize(
    ("changes", "advised"),
    [
        ({}, 0.5),
        ({"profile": PROFILE}, 0.5),
        ({"keep_ratio": 1.0}, 1.0),
        ({"prompt": PROMPT[:127]}, 1.0),
        ({"credit": LENGTH}, 1.0),
        ({"output_prefix": [70, 71]}, 1.0),
        ({"profile": FAST}, 1.0),
        ({"profile": PROFILE, "cached_tokens": len(PROMPT) - 1}, 1.0),
    ],
)
def test_a_list_that_nobody_could_use_is_not_made(changes: dict[str, Any], advised: float) -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            seen = await _responses(cloud, _start(**changes))
            assert seen[0].started.advice.keep_ratio == advised
            assert _refined(seen) == (advised < 1)

    run_virtual(main())


def test_unasked_the_cloud_refines_nothing() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            message = _start()
            message.start.ClearField("keep_ratio")
            assert not _refined(await _responses(cloud, message))

    run_virtual(main())


def test_a_device_that_says_it_is_past_everything_is_told_nothing() -> None:
    async def main() -> None:
        async with reference_cloud(step_s=0.1) as cloud:
            progress = public.Progress(prefilled_tokens=len(PROMPT) - 1)
            early = public.GenerateRequest(progress=progress)
            progress = public.Progress(prefilled_tokens=len(PROMPT))
            done = public.GenerateRequest(progress=progress)
            # It waits for its turn behind the others, whose prefills come first.
            answers = await asyncio.gather(
                _responses(cloud, _start()),
                _responses(cloud, _start(), early),
                _responses(cloud, _start(), done),
            )
            assert [_refined(seen) for seen in answers] == [1, 1, 0]

    run_virtual(main())


def test_a_prompt_is_refined_once_however_often_it_is_prefilled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The prefill behind some tokens of the answer makes no list; the first one's holds."""
    watched = []
    watch = Refiner.watch

    def counting(self: Refiner, *args: Any, **options: Any) -> Any:
        watched.append(args)
        return watch(self, *args, **options)

    monkeypatch.setattr(Refiner, "watch", counting)

    async def main() -> None:
        async with reference_cloud() as cloud:
            original = cloud.prefill.slots.ticket_of

            def corrupting(slot: Any, digest: Any) -> Any:
                ticket = original(slot, digest)
                slot.cells[0, 0, 3] += 1
                cloud.prefill.slots.ticket_of = original  # once
                return ticket

            cloud.prefill.slots.ticket_of = corrupting
            seen = await _responses(cloud, _start())
            states = [each.progress.state for each in seen if each.HasField("progress")]
            assert states == [public.REQUEST_STATE_RECOMPUTING]
            assert _refined(seen) == len(watched) == 1

    run_virtual(main())


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5, float("nan")])
def test_a_ratio_that_makes_no_sense_is_refused_on_both_sides(ratio: float) -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            with pytest.raises(InvalidRequest, match="keep_ratio"):
                await _responses(cloud, _start(keep_ratio=ratio))
            async with reference_device(cloud) as device:
                with pytest.raises(InvalidRequest, match="keep_ratio") as refused:
                    device.client.stream(prompt_token_ids=PROMPT, keep_ratio=ratio, max_tokens=5)
                assert refused.value.param == "keep_ratio"

    run_virtual(main())


def test_an_engine_that_cannot_leave_gaps_asks_for_no_list() -> None:
    engine = ReferenceDeviceEngine()
    engine._capabilities = replace(engine.capabilities, positions="compact")

    async def main() -> None:
        async with reference_cloud() as cloud:
            transport = FaultyTransport(cloud.transport())
            async with reference_device(transport, engine=engine) as device:
                with pytest.raises(Unsupported, match="without gaps"):
                    device.client.stream(prompt_token_ids=PROMPT, keep_ratio=0.5, max_tokens=5)
                stream = device.client.stream(
                    prompt_token_ids=PROMPT, max_tokens=5, mode=Mode.SPLIT
                )
                async with stream as answer:
                    await answer.final()
            assert transport.streams[0].sent[0].start.keep_ratio == 1

    run_virtual(main())
