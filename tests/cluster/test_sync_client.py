"""The client without `async`: same answers, same errors, cancel from any thread."""

from __future__ import annotations

import threading

import pytest

from demos.cluster import Cluster
from segue_device import Client, DeviceConditions, Done, FinishReason, Sampling, Takeover, Token
from segue_protocol.errors import InvalidRequest
from tests.processes import device_model

MESSAGES = [{"role": "user", "content": "Write about the sea."}]
SAMPLING = Sampling(seed=4, temperature=0.9, logit_bias={2: -100.0})


def test_a_split_answer_without_async(cluster: Cluster) -> None:
    with Client(cloud=cluster.address, model=device_model()) as client:
        with client.stream(messages=MESSAGES, max_tokens=24, sampling=SAMPLING) as answer:
            events = list(answer)
        assert isinstance(events[-1], Done)
        tokens = [event for event in events if isinstance(event, Token)]
        assert [token.index for token in tokens] == list(range(24))
        assert any(isinstance(event, Takeover) for event in events)
        with client.stream(
            messages=MESSAGES, max_tokens=24, sampling=SAMPLING, mode="only_on_device"
        ) as answer:
            assert "".join(answer.text_deltas()) == events[-1].result.text
        with client.stream(
            messages=MESSAGES, max_tokens=24, sampling=SAMPLING, mode="only_in_cloud"
        ) as answer:
            assert answer.final().token_ids == events[-1].result.token_ids


def test_cancel_from_another_thread() -> None:
    with Client(model=device_model()) as client:
        with client.stream(messages=MESSAGES, max_tokens=2000, sampling=SAMPLING) as answer:
            for event in answer:
                if isinstance(event, Token) and event.index == 3:
                    thread = threading.Thread(target=answer.cancel)
                    thread.start()
                    thread.join()
            result = event.result
        assert result.finish_reason is FinishReason.CANCELLED
        assert 4 <= len(result.token_ids) < 2000


def test_leaving_early_frees_the_engine() -> None:
    with Client(model=device_model()) as client:
        for _ in range(2):
            with client.stream(messages=MESSAGES, max_tokens=2000, sampling=SAMPLING) as answer:
                next(iter(answer))


def test_closing_the_client_ends_an_answer_that_was_not_left() -> None:
    with Client(model=device_model()) as client:
        answer = client.stream(messages=MESSAGES, max_tokens=2000, sampling=SAMPLING).__enter__()
        next(iter(answer))


def test_a_conversation_and_questions_without_async(cluster: Cluster) -> None:
    with Client(cloud=cluster.address, model=device_model()) as client:
        status = client.status()
        assert (status.device.ready, status.cloud.ready, status.split.ready) == (True,) * 3
        assert client.preflight(messages=MESSAGES, max_tokens=10).fits
        session = client.session(max_tokens=8, sampling=SAMPLING)
        for text in ("Hello.", "And then?"):
            with session.stream(text) as answer:
                raw = "".join(each.text for each in answer.raw() if isinstance(each, Token))
            assert session.messages[-1] == {"role": "assistant", "content": raw}
        client.set_conditions(DeviceConditions(too_hot=True))
        client.suspend()
        client.resume()
        with client.stream(messages=MESSAGES, max_tokens=8, sampling=SAMPLING) as answer:
            assert answer.final().usage.device_tokens == 0


def test_errors_are_those_of_the_async_client() -> None:
    with pytest.raises(InvalidRequest, match="needs a cloud"), Client():
        pass
    client = Client(model=device_model())
    with pytest.raises(InvalidRequest, match="with"):
        client.stream(messages=MESSAGES, max_tokens=4)
    with client, pytest.raises(InvalidRequest, match="max_tokens is 0"):
        client.stream(messages=MESSAGES, max_tokens=0)
