"""The demo's network, cut and mended in mid-answer, and how far an answer is meanwhile."""

from __future__ import annotations

from demos.chat.network import EmulatedNetwork
from segue_device import Event, Mode, Progress, Reconnecting, Resumed, Sampling, Token
from tests.harness import reference_client, reference_cloud
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"The network of a train in the mountains. ")
SAMPLING = Sampling(temperature=0.9, seed=2, logit_bias={256: -100.0})
LENGTH = 24


def test_an_answer_is_resumed_when_the_network_is_mended() -> None:
    async def main() -> None:
        async with reference_cloud(step_s=0.05) as cloud:
            whole = await _tokens(EmulatedNetwork(cloud.transport(), 0.1), None)
            network = EmulatedNetwork(cloud.transport(), 0.1)
            events: list[Event] = []
            assert await _tokens(network, events) == whole
            assert len(whole) == LENGTH
            kinds = [type(event) for event in events]
            assert kinds.index(Reconnecting) < kinds.index(Resumed)
            assert not network.is_cut

    run_virtual(main())


async def _tokens(network: EmulatedNetwork, cut: list[Event] | None) -> list[int | None]:
    """The ids of one answer from the cloud; cut and mended on the way if `cut` takes events."""
    ids: list[int | None] = []
    async with reference_client(network) as client:
        stream = client.stream(
            prompt_token_ids=PROMPT,
            sampling=SAMPLING,
            max_tokens=LENGTH,
            mode=Mode.ONLY_IN_CLOUD,
        )
        async with stream as answer:
            async for event in answer:
                if isinstance(event, Token):
                    ids.append(event.token_id)
                if cut is None:
                    continue
                cut.append(event)
                if isinstance(event, Token) and event.index == 3:
                    network.set_round_trip(0.2)  # the stream of the round trip before is cut too
                    await network.cut()
                elif isinstance(event, Reconnecting):
                    network.mend()
    return ids


def test_progress_tells_how_far_an_answer_is() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud, reference_client(cloud.transport()) as client:
            stream = client.stream(
                prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=LENGTH, credit_through=6
            )
            assert stream.progress == Progress(0, 0, 0, 0, 0)
            seen = []
            async with stream as answer:
                async for event in answer:
                    seen.append((event, answer.progress))
            for event, progress in seen:
                assert progress.shown_tokens <= progress.received_tokens <= LENGTH
                assert 0 <= progress.lag_tokens <= 6
                if isinstance(event, Token):
                    assert progress.shown_tokens > (event.index or 0)
            assert any(progress.lag_tokens for _, progress in seen), "the cloud was ahead once"
            everything = Progress(LENGTH, LENGTH, len(PROMPT), len(PROMPT), 0)
            assert seen[-1][1] == everything

    run_virtual(main())
