"""The tuner at work: what the gateway advises, what the device learns, and who says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segue_cloud.cluster.groups import Group, Groups
from segue_cloud.tuner.advice import DEFAULT_NETWORK, CloudEstimate
from segue_device import AsyncClient, DeviceModel, DeviceProfile, Result, Sampling
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.engines.runner import InlineRunner
from segue_device.transports.base import Transport
from segue_device.transports.delayed import DelayedTransport
from segue_protocol.errors import InvalidRequest
from segue_protocol.reference import reference_vocabulary
from segue_protocol.tuning import Targets, TuningView, decide
from segue_protocol.wire import public
from tests.harness import PROFILE, device_cost, reference_client, reference_cloud
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"A prompt that takes this device half a second or so to read. " * 7)
SAMPLING = Sampling(seed=3, logit_bias={256: -100.0})
SLOWER = 1.3
# What the device really is, beside what it believes.
REAL = replace(PROFILE, prefill_per_token_s=PROFILE.prefill_per_token_s * SLOWER)


def _client(
    transport: Transport,
    real: DeviceProfile,
    learns: bool = False,
    believed: DeviceProfile = PROFILE,
) -> AsyncClient:
    runner = InlineRunner(ReferenceDeviceEngine(), device_cost(real))
    model = DeviceModel(runner, believed, vocabulary=reference_vocabulary(), learns=learns)
    return AsyncClient(cloud=transport, model=model, reuse_kv=False)


async def _answer(client: AsyncClient, **options: object) -> Result:
    stream = client.stream(
        **{"prompt_token_ids": PROMPT, "sampling": SAMPLING, "max_tokens": 60, **options}
    )
    async with stream as answer:
        return await answer.final()


def test_a_device_learns_how_fast_it_is_and_how_far_the_cloud() -> None:
    async def main() -> None:
        async with reference_cloud(max_tokens=1024, pages=1024) as cloud:
            transport = DelayedTransport(cloud.transport(), rtt_s=0.12)
            async with _client(transport, REAL, learns=True) as client:
                for _ in range(25):
                    last = await _answer(client)
                assert client.model is not None
                learnt = client.model.profile
                assert learnt.prefill_s(400) == pytest.approx(REAL.prefill_s(400), rel=0.03)
                assert 0 < learnt.relative_error < 0.06
                assert last.timings.max_gap_s < 0.1
                session = list(cloud.gateway.sessions)[-1]
                assert session.request.network is not None
                assert session.request.network.added_s == pytest.approx(0.12, abs=0.01)

    run_virtual(main())


def test_a_profile_that_was_given_stays_as_it_is() -> None:
    async def main() -> None:
        async with reference_cloud(max_tokens=1024, pages=1024) as cloud:
            async with _client(cloud.transport(), REAL) as client:
                await _answer(client)
                assert client.model is not None
                assert client.model.profile == PROFILE

    run_virtual(main())


@pytest.mark.parametrize("times", [0.8, 1.0, 1.2])
def test_an_unsure_device_begins_with_few_tokens_and_gets_what_it_needs(times: float) -> None:
    """Anywhere within its margin it neither stalls nor takes more than the margin."""

    async def main() -> None:
        unsure = replace(PROFILE, relative_error=0.1)
        real = replace(PROFILE, prefill_per_token_s=PROFILE.prefill_per_token_s * times)
        async with reference_cloud(max_tokens=2048, pages=2048) as cloud:
            transport = DelayedTransport(cloud.transport(), rtt_s=0.05)
            async with _client(transport, real, believed=unsure) as client:
                result = await _answer(client, prompt_token_ids=PROMPT * 3, max_tokens=200)
            (session,) = cloud.gateway.sessions
            view = TuningView(
                unsure,
                CloudEstimate().speed(len(PROMPT * 3)),
                len(PROMPT * 3),
                200,
                network=DEFAULT_NETWORK,
                targets=session.request.targets_over(Targets()),
                may_be_alone=False,
            )
            decision = decide(view)
            assert session.advice.cloud_tokens == decision.first_credit
            assert decision.first_credit < decision.cloud_tokens
            first, most = decision.first_credit, decision.cloud_tokens
            assert first <= result.usage.cloud_tokens <= most, (first, most)
            assert result.timings.stalls(longer_than_s=0.25) == 0

    run_virtual(main())


def test_the_answer_says_why_the_cloud_made_so_many_tokens() -> None:
    async def main() -> None:
        async with reference_cloud(max_tokens=1024, pages=1024) as cloud:
            async with reference_client(cloud.transport()) as client:
                split = await _answer(client)
                fixed = await _answer(client, credit_through=5)
                short = await _answer(client, max_tokens=3)
                alone = await _answer(client, ttft_target_s=2.0)
            advised = next(iter(cloud.gateway.sessions)).advice.cloud_tokens
        assert f"The cloud makes {advised} tokens, no stall binds" in split.explanation
        assert fixed.explanation == "", "the app decided"
        assert "3 tokens at most" in short.explanation
        assert "within the target of 2.00 s" in alone.explanation
        assert alone.usage.cloud_tokens == 0

    run_virtual(main())


def test_a_group_has_targets_and_a_request_its_own() -> None:
    async def main() -> None:
        groups = Groups(
            [
                Group("brisk", labels=("brisk",), targets=Targets(tpot_s=0.03)),
                Group("easy", labels=("easy",), targets=Targets(tpot_s=0.2)),
                Group("plain"),
            ]
        )
        async with reference_cloud(max_tokens=1024, pages=1024, groups=groups) as cloud:
            async with reference_client(cloud.transport()) as client:
                brisk = await _answer(client, label="brisk")
                easy = await _answer(client, label="easy")
                plain = await _answer(client)
        assert brisk.usage.device_tokens == 0
        assert "takes 50 ms a token, more than the target of 30 ms" in brisk.explanation
        assert brisk.timings.gaps_s[:5] == pytest.approx([0.03] * 5)
        assert 0 < easy.usage.cloud_tokens < plain.usage.cloud_tokens

    run_virtual(main())


def test_a_group_without_a_table_refines_nothing_and_one_with_it_needs_fewer_tokens() -> None:
    async def main() -> None:
        floor = Targets(quality_floor=0.95)
        groups = Groups(
            [
                Group("plain", labels=("plain",), targets=floor),
                Group("refined", targets=floor, quality=((0.5, 0.97), (0.25, 0.8))),
            ]
        )
        async with reference_cloud(max_tokens=1024, pages=1024, groups=groups) as cloud:
            async with reference_client(cloud.transport()) as client:
                await _answer(client, label="plain")
                await _answer(client)
            plain, refined = (session.advice for session in cloud.gateway.sessions)
        assert plain.keep_ratio == 1.0
        assert refined.keep_ratio == 0.5
        assert refined.cloud_tokens < plain.cloud_tokens

    run_virtual(main())


def test_the_number_of_tokens_follows_the_keep_ratio_that_is_used() -> None:
    async def main() -> None:
        groups = Groups(
            [Group("plain", labels=("plain",)), Group("refined", quality=((0.5, 1.0),))]
        )
        short = PROMPT[:120]  # not worth a list
        async with reference_cloud(max_tokens=1024, pages=1024, groups=groups) as cloud:
            async with reference_client(cloud.transport()) as client:
                await _answer(client, label="plain")
                await _answer(client, label="plain", keep_ratio=0.5)
                await _answer(client, label="plain", prompt_token_ids=short)
                await _answer(client, prompt_token_ids=short)
            plain, asked, short_plain, short_refined = (
                session.advice for session in cloud.gateway.sessions
            )
        assert asked.keep_ratio == 0.5
        assert asked.cloud_tokens < plain.cloud_tokens
        assert short_refined.keep_ratio == 1.0
        assert short_refined.cloud_tokens == short_plain.cloud_tokens

    run_virtual(main())


@pytest.mark.parametrize(
    ("field", "value"),
    [("slo.ttft_s", -1.0), ("slo.tpot_s", float("inf")), ("network.added_s", float("nan"))],
)
def test_durations_that_make_no_sense_are_refused(field: str, value: float) -> None:
    async def main() -> None:
        async with reference_cloud() as cloud, reference_client(cloud.transport()) as client:
            request = client.stream(prompt_token_ids=[1, 2], max_tokens=2)._request
            start = request.start_message()
            message, name = field.split(".")
            setattr(getattr(start, message), name, value)

            async def messages():  # type: ignore[no-untyped-def]
                yield public.GenerateRequest(start=start)

            with pytest.raises(InvalidRequest, match=field):
                await anext(cloud.gateway.generate(messages()))

    run_virtual(main())
