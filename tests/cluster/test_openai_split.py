"""An app written for OpenAI gains split inference by a base URL, over a real cluster."""

from __future__ import annotations

import openai
import pytest

from demos.cluster import Cluster
from tests.contract.openai_server import running_server
from tests.processes import connected

# Long enough that the device, which is slowed, is late.
MESSAGES = [{"role": "user", "content": "Write about the sea and the village. " * 30}]
CHAT = {"model": "tiny", "messages": MESSAGES, "max_tokens": 40, "seed": 4, "temperature": 0}


def test_one_answer_of_two_machines(cluster: Cluster) -> None:
    with running_server(lambda: connected(cluster)) as server, server.openai() as client:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, last = client.chat.completions.create(**CHAT, **options)
        segue = last.usage.model_extra["segue"]
        assert segue["cloud_tokens"] == segue["takeover_index"] > 0
        assert segue["device_tokens"] > 0
        alone = {"segue": {"mode": "only_on_device"}}
        whole = client.chat.completions.create(**CHAT, extra_body=alone)
        assert whole.usage.model_extra["segue"]["cloud_tokens"] == 0
        text = "".join(each.choices[0].delta.content or "" for each in chunks)
        assert text == whole.choices[0].message.content


def test_a_device_without_a_model_serves_the_clouds(cluster: Cluster) -> None:
    with running_server(lambda: connected(cluster, with_engine=False), models=("tiny",)) as server:
        with server.openai() as client:
            with pytest.raises(openai.BadRequestError, match="only_in_cloud"):
                client.chat.completions.create(**CHAT)
            in_cloud = {"extra_body": {"segue": {"mode": "only_in_cloud"}}, "logprobs": True}
            answer = client.chat.completions.create(**CHAT | in_cloud | {"max_tokens": 8})
            logprobs = answer.choices[0].logprobs.content
            assert "".join(each.token for each in logprobs) == answer.choices[0].message.content
            assert answer.choices[0].message.content
            assert answer.usage.completion_tokens == 8
            assert answer.usage.prompt_tokens > 100
            # Several at once: no engine here has to be shared.
            streams = [
                client.chat.completions.create(**CHAT | in_cloud | {"max_tokens": 200}, stream=True)
                for _ in range(3)
            ]
            for stream in streams:
                next(iter(stream))
            server.wait_for(running=3, waiting=0)
            for stream in streams:
                stream.close()
