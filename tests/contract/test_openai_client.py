"""`client.chat.completions.create` in the SDK itself, with and without `async`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from segue_cloud.gateway.state import RequestState
from segue_device import AsyncClient, Client, DeviceModel, Sampling
from segue_device.openai_form import ChatCompletion, ChatCompletionChunk, Completion
from segue_protocol.errors import InvalidRequest, NotFound, SegueError, Unsupported
from tests.contract.openai_server import DEADLINE_S, ENDLESS, FAST, PROMPT, Engine
from tests.harness import reference_cloud
from tests.processes import device_model

MESSAGES: list[Any] = [{"role": "user", "content": "Write about the sea."}]
CHAT = {"messages": MESSAGES, "max_tokens": 12, "seed": 4}
LONG = CHAT | {"max_tokens": 3000, "logit_bias": {"2": -100}, "stream": True}


async def _model() -> DeviceModel:
    return await DeviceModel.load(device_model(), profile=FAST)


def _run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


def test_async_answers() -> None:
    async def main() -> None:
        async with AsyncClient(model=await _model()) as client:
            sampling = Sampling(temperature=1.0, seed=4)
            async with client.stream(messages=MESSAGES, max_tokens=12, sampling=sampling) as own:
                text = (await own.final()).text
            whole = await client.chat.completions.create(**CHAT)
            assert isinstance(whole, ChatCompletion)
            assert whole.choices[0].message.content == text
            assert whole.usage.completion_tokens == whole.usage.segue.device_tokens == 12
            assert whole.model == "tiny"
            stream = await client.chat.completions.create(**CHAT, stream=True, model="tiny")
            pieces = []
            async for chunk in stream:
                assert isinstance(chunk, ChatCompletionChunk)
                pieces.append(chunk.choices[0].delta.content or "")
            assert "".join(pieces) == text
            # The answer's message goes into the next turn as it is.
            again = [*MESSAGES, whole.choices[0].message, MESSAGES[0]]
            assert (await client.chat.completions.create(**CHAT | {"messages": again})).choices
            completion = await client.completions.create(prompt="The sea", max_tokens=3)
            assert isinstance(completion, Completion)

    _run(main)


def test_answers_without_async() -> None:
    with Client(model=device_model()) as client:
        whole = client.chat.completions.create(**CHAT)
        with client.chat.completions.create(**CHAT, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(pieces) == whole.choices[0].message.content
        text = client.completions.create(prompt="The sea", max_tokens=3, seed=1)
        chunks = client.completions.create(prompt="The sea", max_tokens=3, seed=1, stream=True)
        assert "".join(each.choices[0].text for each in chunks) == text.choices[0].text


def test_leaving_early_frees_the_engine() -> None:
    async def main() -> None:
        async with AsyncClient(model=await _model()) as client:
            async with await client.chat.completions.create(**LONG) as stream:
                await anext(stream)
                with pytest.raises(InvalidRequest, match="another answer") as busy:
                    await client.chat.completions.create(**LONG)
                assert busy.value.reason == "ENGINE_BUSY"
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            stream = await client.chat.completions.create(**LONG)
            async for _ in stream:
                break
            await stream.close()
            await stream.close()
            assert (await client.chat.completions.create(**CHAT)).choices

    _run(main)


def test_a_dropped_stream_is_cancelled() -> None:
    async def main() -> None:
        async with AsyncClient(model=await _model()) as client:
            stream = await client.chat.completions.create(**LONG)
            await anext(stream)
            (task,) = _answer_tasks()
            del stream
            gc.collect()
            await asyncio.wait({task})
            assert (await client.chat.completions.create(**CHAT)).choices

    _run(main)


def _answer_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_coro().__name__ == "_hold"]


def test_a_client_can_be_left_with_an_open_stream() -> None:
    with Client(model=device_model()) as client:
        stream = client.chat.completions.create(**LONG)
        next(stream)
    with pytest.raises(InvalidRequest, match="not open"):
        client.chat.completions.create(**CHAT)


def test_a_cancelled_caller_cancels_the_answer() -> None:
    async def main() -> None:
        engine = Engine(hold_at=1)
        async with engine.client() as client:
            asking = asyncio.create_task(client.completions.create(**ENDLESS | {"model": ""}))
            await asyncio.to_thread(engine.held.wait, DEADLINE_S)
            asking.cancel()
            await asyncio.wait({asking})
            assert asking.cancelled()
            assert engine.stopped.is_set()
            assert not _answer_tasks()

    _run(main)


def test_a_caller_that_is_cancelled_at_once_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with Engine(hold_at=1).client() as client:
            for steps in range(4):
                asking = asyncio.create_task(client.completions.create(**ENDLESS))
                for _ in range(steps):
                    await asyncio.sleep(0)
                asking.cancel()
                await asyncio.wait({asking})
                assert asking.cancelled()
                assert not _answer_tasks()

    _run(main)


def test_errors_carry_what_was_made() -> None:
    async def main() -> None:
        async with Engine(fail_at=len(PROMPT) + 9).client() as client:
            stream = await client.completions.create(**ENDLESS | {"stream": True})
            pieces = []

            async def read() -> None:
                async for chunk in stream:
                    pieces.append(chunk.choices[0].text)

            with pytest.raises(SegueError, match="has failed") as failed:
                await read()
            assert len(failed.value.partial) >= 8
            assert "".join(pieces)
            with pytest.raises(SegueError, match="has failed"):
                await client.completions.create(**ENDLESS)

    _run(main)


def test_refusals_name_the_parameter() -> None:
    with Client(model=device_model()) as client:
        for kind, param, changed in [
            (NotFound, "model", {"model": "gpt-9"}),
            (Unsupported, "tools", {"tools": [{"type": "function"}]}),
            (InvalidRequest, "timeout", {"timeout": 3}),
            (InvalidRequest, "segue.mode", {"extra_body": {"segue": {"mode": "fast"}}}),
            (InvalidRequest, "top_p", {"top_p": 0}),
        ]:
            with pytest.raises(kind) as refused:
                client.chat.completions.create(**CHAT | changed)
            assert refused.value.param == param


def test_a_split_answer_says_who_made_what() -> None:
    async def main() -> None:
        async with reference_cloud() as cloud, Engine().client() as device:
            transport = cloud.transport()
            async with AsyncClient(cloud=transport, model=device.model, reuse_kv=False) as client:
                texts = {}
                for mode in ("split", "only_in_cloud", "only_on_device"):
                    segue = {"mode": mode, "credit_through": 6}
                    whole = await client.completions.create(
                        **ENDLESS, max_tokens=24, extra_body={"segue": segue}
                    )
                    texts[mode] = whole.choices[0].text
                    made = whole.usage.segue
                    assert made.cloud_tokens + made.device_tokens == 24
                    if mode == "split":
                        assert made.cloud_tokens == made.takeover_index
                assert len(set(texts.values())) == 1

    _run(main)


def test_a_stream_that_is_left_is_cancelled_in_the_cloud() -> None:
    """Its gateway must not go on until a lease ends."""

    async def main() -> None:
        async with reference_cloud(step_s=0.02) as cloud, Engine().client() as device:
            async with AsyncClient(cloud=cloud.transport(), model=device.model) as client:
                stream = await client.completions.create(
                    **ENDLESS, max_tokens=200, stream=True, segue={"mode": "only_in_cloud"}
                )
                await anext(stream)
                (session,) = cloud.gateway.sessions
                assert session.state is not RequestState.FINISHED
                await stream.close()
                assert session.state is RequestState.FINISHED

    _run(main)
