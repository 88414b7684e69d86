"""What leaves the device while it writes: nothing of what it says."""

from __future__ import annotations

from segue_device import Sampling
from segue_protocol.wire import public
from tests.faulty_transport import FaultyTransport
from tests.harness import reference_cloud, reference_device
from tests.virtual_clock import run_virtual

PROMPT = tuple(b"Between the two of us. ") * 15
SAMPLING = Sampling(temperature=0.9, seed=3, logit_bias={256: -100.0})


def test_tokens_of_the_device_are_not_sent_while_they_are_made() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud:
            recorder = FaultyTransport(cloud.transport())
            async with reference_device(recorder) as device:
                stream = device.client.stream(
                    prompt_token_ids=PROMPT, sampling=SAMPLING, max_tokens=80
                )
                async with stream as answer:
                    result = await answer.final()
        assert result.usage.device_tokens > 40
        (only,) = recorder.streams
        kinds = [message.WhichOneof("message") for message in only.sent]
        assert kinds[0] == "start"
        assert kinds[-1] == "takeover"
        assert set(kinds[1:-1]) <= {"credit"}
        assert not only.sent[0].start.output_prefix
        # What there is beside the prompt: a number, and a digest over what the cloud knows.
        fields = [field.name for field, _ in only.sent[-1].takeover.ListFields()]
        assert fields == ["index", "prefix_hash"]
        assert isinstance(only.sent[-1], public.GenerateRequest)

    run_virtual(main())
