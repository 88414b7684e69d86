"""A client without a model: text in, text out, stop strings looked for in the cloud."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from demos.cluster import Cluster
from segue_device import AsyncClient, FinishReason, Mode, Result, Sampling
from tests.processes import connected, device_model

PROMPT = "A client without a model asks for a story about the sea."
SAMPLING = Sampling(temperature=0.9, seed=8, logit_bias={2: -100.0})


async def _answer(client: AsyncClient, mode: Mode, stop: tuple[str, ...] = ()) -> Result:
    stream = client.stream(
        prompt=PROMPT, sampling=replace(SAMPLING, stop=stop), max_tokens=60, mode=mode
    )
    async with stream as answer:
        return await answer.final()


def test_the_text_is_that_of_a_device_with_the_tokenizer(cluster: Cluster) -> None:
    async def main() -> None:
        async with connected(cluster) as device, connected(cluster, with_engine=False) as bare:
            whole = await _answer(device, Mode.ONLY_ON_DEVICE)
            cloud = await _answer(bare, Mode.ONLY_IN_CLOUD)
            assert cloud.token_ids == whole.token_ids
            assert cloud.text == whole.text
            assert cloud.finish_reason is FinishReason.LENGTH
            # A stop string in the middle of the text, across token borders.
            middle = len(whole.text) // 2
            stop = (whole.text[middle : middle + 7],)
            stopped_on_device = await _answer(device, Mode.ONLY_ON_DEVICE, stop)
            stopped_in_cloud = await _answer(bare, Mode.ONLY_IN_CLOUD, stop)
            assert stopped_in_cloud.text == stopped_on_device.text
            assert stopped_in_cloud.text == whole.text[: whole.text.index(stop[0])]
            assert stopped_in_cloud.token_ids == stopped_on_device.token_ids
            assert stopped_in_cloud.finish_reason is FinishReason.STOP

    asyncio.run(main())


def test_an_app_names_an_address_and_a_model(cluster: Cluster) -> None:
    """The short form: everything is opened by name, the speed is measured."""

    async def main() -> None:
        async with AsyncClient(cloud=cluster.address, model=device_model()) as client:
            assert client.model is not None
            assert client.model.profile.prefill_per_token_s > 0
            messages = [{"role": "user", "content": "Write about the sea."}]
            async with client.stream(messages=messages, max_tokens=12) as answer:
                text = "".join([delta async for delta in answer.text_deltas()])
            async with client.stream(
                messages=messages, max_tokens=12, mode="only_on_device"
            ) as answer:
                assert (await answer.final()).text == text

    asyncio.run(main())
