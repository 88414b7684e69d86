"""Conversations: history, the device's KV between turns, and when the cloud is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from segue_device import (
    AsyncClient,
    DeviceModel,
    Fallback,
    Mode,
    PrefixStore,
    Preflight,
    Privacy,
    Sampling,
)
from segue_device.engines.reference import ReferenceDeviceEngine
from segue_device.engines.runner import InlineRunner
from segue_protocol.errors import ContextTooLong, InvalidRequest, Unsupported
from segue_protocol.reference import reference_vocabulary
from segue_protocol.vocabulary import Vocabulary
from tests.harness import PROFILE, Cloud, device_cost, reference_cloud
from tests.virtual_clock import run_virtual

SAMPLING = Sampling(temperature=0.9, seed=4, logit_bias={256: -100.0})
SYSTEM = "You are a helpful device, and you answer at length. " * 10


@dataclass(frozen=True)
class ByteTokenizer:
    """Bytes are ids; turns are lines. `renders_old` may spell earlier answers differently."""

    vocabulary: Vocabulary
    shout: bool = False

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        lines = []
        for place, each in enumerate(messages):
            old = place < len(messages) - 1 and each["role"] == "assistant"
            lines.append(each["content"].upper() if old and self.shout else each["content"])
        return self.encode("\n".join(lines) + "\n")


def _client(
    cloud: Cloud | None,
    *,
    shout: bool = False,
    store: PrefixStore | None = None,
    **options: object,
) -> AsyncClient:
    engine = ReferenceDeviceEngine()
    model = DeviceModel(
        InlineRunner(engine, device_cost(PROFILE)),
        PROFILE,
        vocabulary=reference_vocabulary(),
        tokenizer=ByteTokenizer(reference_vocabulary(), shout),
        prefix_store=store,
    )
    transport = cloud.transport() if cloud is not None else None
    return AsyncClient(cloud=transport, model=model, **options)


def test_a_later_turn_is_prefilled_where_it_differs_and_needs_no_cloud() -> None:
    async def main() -> None:
        async with reference_cloud(max_tokens=4096, pages=2048) as cloud, _client(cloud) as client:
            session = client.session(system=SYSTEM, sampling=SAMPLING, max_tokens=20)
            async with session.stream("Who are you?") as answer:
                first = await answer.final()
            assert first.usage.cloud_tokens > 0, "a long prompt: the cloud begins"
            async with session.stream("And who am I?") as answer:
                second = await answer.final()
            assert second.usage.cached_tokens > len(SYSTEM)
            assert second.usage.cloud_tokens == 0, "a short way to go: nobody needs the cloud"
            roles = [each["role"] for each in session.messages]
            assert roles == ["system", "user", "assistant", "user", "assistant"]
            assert session.messages[2]["content"] == first.text
            async with session.stream("Again?", ttft_target_s=0.001) as answer:
                assert (await answer.final()).usage.cloud_tokens > 0

    run_virtual(main())


def test_a_template_that_spells_old_turns_differently_cuts_the_match_there() -> None:
    async def main() -> None:
        async with _client(None, shout=True) as client:
            session = client.session(system=SYSTEM, sampling=SAMPLING, max_tokens=20)
            async with session.stream("Hello?") as answer:
                await answer.final()
            async with session.stream("More?") as answer:
                second = await answer.final()
            before = len(f"{SYSTEM}\nHello?\n".encode())
            assert before <= second.usage.cached_tokens < before + 20
            async with _client(None, shout=True, reuse_kv=False) as fresh:
                messages = session.messages[:-1]
                stream = fresh.stream(messages=messages, sampling=SAMPLING, max_tokens=20)
                async with stream as answer:
                    assert (await answer.final()).token_ids == second.token_ids

    run_virtual(main())


def test_private_history_stays_on_the_device_and_says_so() -> None:
    async def main() -> None:
        privacy = Privacy(upload_history=False)
        async with (
            reference_cloud(max_tokens=4096, pages=2048) as cloud,
            _client(cloud, privacy=privacy) as client,
        ):
            session = client.session(
                system=SYSTEM, sampling=SAMPLING, max_tokens=20, ttft_target_s=None
            )
            async with session.stream("First?") as answer:
                assert (await answer.final()).usage.cloud_tokens > 0
            sessions = len(cloud.gateway.sessions)
            async with session.stream("Second?") as answer:
                seen = [event async for event in answer]
            assert seen[-1].result.usage.cloud_tokens == 0
            (told,) = [each for each in seen if isinstance(each, Fallback)]
            assert "history" in told.reason
            assert len(cloud.gateway.sessions) <= sessions
            with pytest.raises(Unsupported, match="history"):
                session.stream("Third?", mode=Mode.ONLY_IN_CLOUD)

    run_virtual(main())


def test_a_turn_that_failed_is_not_part_of_the_conversation() -> None:
    async def main() -> None:
        async with _client(None) as client:
            session = client.session(sampling=SAMPLING, max_tokens=20)
            with pytest.raises(ContextTooLong):
                session.stream("x" * 5000)
            assert session.messages == []
            async with session.stream("Hi", max_tokens=5) as answer:
                async for event in answer:
                    if event.type == "token":
                        break
            assert [each["role"] for each in session.messages] == ["user", "assistant"]
            assert session.messages[1]["content"]
            with pytest.raises(InvalidRequest, match="empty"):
                session.stream("")

    run_virtual(main())


def test_preflight_counts_and_sends_nothing() -> None:
    async def main() -> None:
        async with _client(None) as client:
            assert client.preflight(prompt="abc", max_tokens=10) == Preflight(True, 3, 4096, 0)
            found = client.preflight(
                messages=[{"role": "user", "content": "x" * 4000}], max_tokens=200
            )
            assert found == Preflight(False, 4001, 4096, 105)
        async with AsyncClient(cloud="127.0.0.1:1") as client:
            with pytest.raises(Unsupported, match="device model"):
                client.preflight(prompt="abc")

    run_virtual(main())


def test_status_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            async with _client(cloud) as client:
                status = await client.status()
                assert (status.device.ready, status.cloud.ready, status.split.ready) == (True,) * 3
                async with client.stream(prompt="abc", max_tokens=3):
                    assert "engine" in str((await client.status()).device.reason)
                monkeypatch.setenv("SEGUE_NO_CLOUD", "1")
                assert "SEGUE_NO_CLOUD" in str((await client.status()).cloud.reason)
                monkeypatch.delenv("SEGUE_NO_CLOUD")
                for member in cloud.membership.members:
                    cloud.membership.remove(member)
                status = await client.status()
                assert status.device.ready
                assert not status.cloud.ready
                assert not status.split.ready
            async with _client(cloud, mode=Mode.ONLY_ON_DEVICE) as client:
                assert "only_on_device" in str((await client.status()).cloud.reason)
            async with _client(None) as client:
                assert "no cloud" in str((await client.status()).cloud.reason)

    run_virtual(main())


def test_logprobs_of_both_sides_are_those_of_one_side() -> None:
    async def main() -> None:
        prompt = tuple(SYSTEM.encode())
        results = []
        async with reference_cloud(max_tokens=4096, pages=2048) as cloud:
            for mode in (Mode.SPLIT, Mode.ONLY_ON_DEVICE, Mode.ONLY_IN_CLOUD):
                async with _client(cloud, reuse_kv=False) as client:
                    stream = client.stream(
                        prompt_token_ids=prompt,
                        sampling=SAMPLING,
                        max_tokens=30,
                        mode=mode,
                        logprobs=True,
                    )
                    async with stream as answer:
                        seen = [event async for event in answer]
                told = [each.logprob for each in seen if each.type == "token"]
                assert told == list(seen[-1].result.logprobs)
                results.append(told)
        assert all(value is not None and value < 0 for value in results[0])
        assert results[1] == pytest.approx(results[0], rel=1e-6)  # the wire carries float32
        assert results[2] == pytest.approx(results[0], rel=1e-6)

    run_virtual(main())


def test_a_kept_system_prompt_is_there_after_a_launch(tmp_path: Path) -> None:
    async def main() -> None:
        system = [{"role": "system", "content": SYSTEM}]
        lengths = []
        for _ in range(2):
            async with _client(None, store=PrefixStore(tmp_path)) as client:
                lengths.append(await client.keep_prefix(messages=system))
                session = client.session(system=SYSTEM, sampling=SAMPLING, max_tokens=5)
                async with session.stream("Anything?") as answer:
                    with pytest.raises(InvalidRequest, match="using the device engine"):
                        await client.keep_prefix(prompt="more")
                    assert (await answer.final()).usage.cached_tokens == lengths[-1]
        assert lengths == [len(SYSTEM) + 1] * 2, "with the line's end, without the question"

    run_virtual(main())
