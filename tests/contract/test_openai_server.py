"""The server before the unmodified `openai` package, and before rougher clients."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from segue_device import Sampling
from segue_device.server import serve
from segue_protocol.errors import InvalidRequest, Unavailable
from tests.contract.openai_server import (
    DEADLINE_S,
    ENDLESS,
    KEY,
    PROMPT,
    Engine,
    Server,
    running_server,
    tiny_client,
)

MESSAGES = [{"role": "user", "content": "Write about the sea."}]
TOO_LONG = [{"role": "user", "content": "sea " * 6000}]
CHAT = {"model": "tiny", "messages": MESSAGES, "max_tokens": 16, "seed": 4}


@pytest.fixture(scope="module")
def tiny() -> Iterator[Server]:
    with running_server(tiny_client) as server:
        yield server


# ---- answers


def test_a_chat_answer_is_the_sdks_own(tiny: Server) -> None:
    with tiny.openai() as client:
        answer = client.chat.completions.create(**CHAT)
    own = tiny.own_answer(
        messages=MESSAGES, max_tokens=16, sampling=Sampling(temperature=1.0, seed=4)
    )
    assert answer.choices[0].message.content == own.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == own.finish_reason.value
    assert answer.model == "tiny"
    assert answer.id.startswith("chatcmpl-")
    usage = answer.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (own.usage.prompt_tokens, 16)
    assert usage.total_tokens == usage.prompt_tokens + 16
    segue = usage.model_extra["segue"]
    assert (segue["cloud_tokens"], segue["device_tokens"], segue["seed"]) == (0, 16, 4)


def test_equal_seeds_make_equal_answers(tiny: Server) -> None:
    with tiny.openai() as client:

        def text(**changed: object) -> str | None:
            return client.chat.completions.create(**CHAT | changed).choices[0].message.content

        assert text() == text() == text(temperature=None, top_p=1, n=1, user="somebody")
        assert len({text(seed=seed) for seed in (1, 2, -1)}) == 3
        assert text(temperature=0, seed=1) == text(temperature=0, seed=2)


def test_a_stream_has_openais_chunks(tiny: Server) -> None:
    with tiny.openai() as client:
        whole = client.chat.completions.create(**CHAT)
        chunks = list(client.chat.completions.create(**CHAT, stream=True))
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    first, *middle, last = (chunk.choices[0] for chunk in chunks)
    assert (first.delta.role, first.delta.content) == ("assistant", "")
    assert all(each.delta.role is None and each.finish_reason is None for each in middle)
    assert "".join(each.delta.content for each in middle) == whole.choices[0].message.content
    assert len(middle) > 4
    assert (last.finish_reason, last.delta.content) == ("length", None)


def test_usage_comes_in_a_last_chunk_where_it_is_asked_for(tiny: Server) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    with tiny.openai() as client:
        *others, last = client.chat.completions.create(**CHAT, **options)
    assert all(each.usage is None and each.choices for each in others)
    assert last.choices == []
    assert last.usage.completion_tokens == 16
    assert last.usage.model_extra["segue"]["device_tokens"] == 16


def test_async_clients(tiny: Server) -> None:
    async def main() -> None:
        async with tiny.async_openai() as client:
            whole = await client.chat.completions.create(**CHAT)
            stream = await client.chat.completions.create(**CHAT, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(pieces) == whole.choices[0].message.content

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


def test_text_completions(tiny: Server) -> None:
    request = {"model": "tiny", "prompt": "The sea", "max_tokens": 12, "temperature": 0}
    with tiny.openai() as client:
        whole = client.completions.create(**request)
        chunks = list(client.completions.create(**request, stream=True))
        ids = tiny.client.model.tokenizer.encode("The sea")
        assert client.completions.create(**request | {"prompt": ids}).choices == whole.choices
        assert client.completions.create(**request | {"prompt": [ids]}).choices == whole.choices
    own = tiny.own_answer(prompt="The sea", max_tokens=12)
    assert whole.choices[0].text == own.text == "".join(each.choices[0].text for each in chunks)
    assert [each.choices[0].finish_reason for each in chunks][-2:] == [None, "length"]
    assert whole.object == "text_completion"


def test_stop_strings_end_the_text(tiny: Server) -> None:
    with tiny.openai() as client:
        text = client.chat.completions.create(**CHAT).choices[0].message.content
        stop = text[8:11]
        for stops in (stop, ["never written", stop]):
            choice = client.chat.completions.create(**CHAT, stop=stops).choices[0]
            assert choice.message.content == text[: text.index(stop)]
            assert choice.finish_reason == "stop"


def test_logprobs_of_the_chosen_tokens(tiny: Server) -> None:
    with tiny.openai() as client:
        whole = client.chat.completions.create(**CHAT, logprobs=True).choices[0]
        chunks = client.chat.completions.create(**CHAT, logprobs=True, stream=True)
        told = [each for chunk in chunks for each in _told(chunk.choices[0].logprobs)]
        text = client.completions.create(model="tiny", prompt="The", max_tokens=3, logprobs=0)
    assert told == whole.logprobs.content
    assert b"".join(bytes(each.bytes) for each in told).decode() == whole.message.content
    assert all(each.logprob < 0 and each.top_logprobs == [] for each in told)
    own = tiny.own_answer(
        messages=MESSAGES, max_tokens=16, sampling=Sampling(temperature=1.0, seed=4), logprobs=True
    )
    assert [each.logprob for each in told] == pytest.approx(own.logprobs, rel=1e-4)
    assert len(text.choices[0].logprobs.token_logprobs) == 3


def _told(logprobs: Any) -> list[Any]:
    return logprobs.content if logprobs is not None else []


def test_without_a_limit_the_answer_may_fill_the_context(tiny: Server) -> None:
    # The end-of-text token is the likeliest by far, so that the answer is short.
    request = {"model": "tiny", "messages": MESSAGES, "logit_bias": {"2": 100}}
    with tiny.openai() as client:
        choice = client.chat.completions.create(**request).choices[0]
    assert choice.finish_reason == "stop"


def test_the_mode_can_be_chosen(tiny: Server) -> None:
    with tiny.openai() as client:
        modes = {"segue": {"mode": "only_on_device", "top_k": 1}}
        one = client.chat.completions.create(**CHAT, extra_body=modes)
        greedy = client.chat.completions.create(**CHAT, temperature=0)
        assert one.choices[0].message == greedy.choices[0].message
        with pytest.raises(openai.BadRequestError, match="no cloud"):
            client.chat.completions.create(**CHAT, extra_body={"segue": {"mode": "only_in_cloud"}})


def test_models(tiny: Server) -> None:
    with tiny.openai() as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").owned_by == "segue"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other/model")


# ---- refusals


@pytest.mark.parametrize(
    ("changed", "param", "code"),
    [
        (
            {"messages": [{"role": "user", "content": "sea " * 6000}], "max_tokens": None},
            "messages",
            "too_long",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported"),
        ({"n": 2}, "n", "unsupported"),
        ({"top_logprobs": 3}, "top_logprobs", "unsupported"),
        ({"temperature": -1}, "temperature", "invalid"),
        ({"max_tokens": 0}, "max_tokens", "invalid"),
        ({"logit_bias": {"2048": 1}}, "logit_bias", "invalid"),
        ({"extra_body": {"grammar": "x"}}, "grammar", "unknown"),
    ],
)
def test_bad_requests_name_the_parameter(
    tiny: Server, changed: dict[str, object], param: str, code: str
) -> None:
    codes = {
        "too_long": "context_length_exceeded",
        "unsupported": "unsupported_parameter",
        "invalid": "invalid_request",
        "unknown": "unknown_parameter",
    }
    with tiny.openai() as client, pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**CHAT | changed)
    assert (refused.value.param, refused.value.code) == (param, codes[code])
    assert refused.value.type == "invalid_request_error"


def test_a_wrong_model(tiny: Server) -> None:
    with tiny.openai() as client, pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(**CHAT | {"model": "gpt-9"})
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_a_wrong_key(tiny: Server) -> None:
    with tiny.openai("another key") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
    assert tiny.get("/healthz", Authorization="none")[0] == 200


def test_web_pages_are_turned_away(tiny: Server) -> None:
    for host in ("evil.example", f"evil.example:{tiny.port}", "127.0.0.1.evil.example"):
        status, body = tiny.get("/v1/models", Host=host)
        assert (status, body["error"]["code"]) == (403, "host_refused")
    for host in ("localhost", f"LOCALHOST:{tiny.port}", "[::1]:80", "127.0.0.2"):
        assert tiny.get("/v1/models", Host=host)[0] == 200
    status, body = tiny.get("/v1/models", Origin="https://evil.example")
    assert (status, body["error"]["code"]) == (403, "origin_refused")
    assert tiny.get("/v1/models", Origin=f"http://127.0.0.1:{tiny.port}")[0] == 200


def test_names_keys_and_origins_are_the_owners_choice() -> None:
    options = {
        "models": ("gpt-4o-mini", "vendor/tiny"),
        "api_key": None,
        "hosts": ("device.example",),
        "origins": ("https://app.example",),
    }
    with running_server(tiny_client, **options) as server, server.openai() as client:
        assert client.models.retrieve("vendor/tiny").id == "vendor/tiny"
        named = client.chat.completions.create(**CHAT | {"model": "vendor/tiny"})
        assert named.model == "vendor/tiny"
        assert server.get("/v1/models", Host="device.example", Authorization="")[0] == 200
        preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        assert server.get("/v1/models", **preflight)[0] == 200
        assert server.get("/v1/models", Origin="https://other.example")[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"\xff", 400),
        ("POST", "/v1/chat/completions", b"[" * 100_000, 400),
        ("POST", "/v1/chat/completions", b"[1]", 400),
        ("POST", "/v1/chat/completions", b'{"messages": [{"role": "user"}]}', 400),
        ("POST", "/v1/completions", b'{"prompt": "\\ud800"}', 400),
        ("POST", "/v1/completions", b'{"prompt": "x", "temperature": NaN}', 400),
        ("POST", "/v1/completions", b" " * (8 * 2**20 + 1), 413),
        ("GET", "/v1/chat/completions", None, 405),
        ("POST", "/v1/responses", b"{}", 404),
    ],
)
def test_every_error_has_openais_form(
    tiny: Server, method: str, path: str, body: bytes | None, status: int
) -> None:
    found, answer = tiny.raw(method, path, body, {"Content-Type": "application/json"})
    assert found == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}


def test_where_it_may_listen() -> None:
    async def main() -> None:
        async with tiny_client() as client:
            with pytest.raises(InvalidRequest, match="insecure"):
                await serve(client, host="0.0.0.0")
            with pytest.raises(InvalidRequest, match="key is empty"):
                await serve(client, api_key="")
            with socket.create_server(("127.0.0.1", 0)) as taken:
                with pytest.raises(Unavailable, match="cannot listen"):
                    await serve(client, port=taken.getsockname()[1])

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))


# ---- leaving early, waiting, failing


def test_leaving_a_stream_frees_the_engine(tiny: Server) -> None:
    long = CHAT | {"max_tokens": 3000, "logit_bias": {"2": -100}, "stream": True}
    with tiny.openai() as client:
        for _ in range(2):
            with client.chat.completions.create(**long) as stream:
                next(iter(stream))
        tiny.wait_for(running=0, waiting=0)
        assert client.chat.completions.create(**CHAT).choices

    async def main() -> None:
        async with tiny.async_openai() as client:
            stream = await client.chat.completions.create(**long)
            async for _ in stream:
                break
            await stream.close()

    asyncio.run(asyncio.wait_for(main(), DEADLINE_S))
    tiny.wait_for(running=0, waiting=0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_in_prefill_stops_the_engine(stream: bool) -> None:
    engine = Engine(hold_at=1)
    with running_server(engine.client) as server:
        connection = server.begin("/completions", ENDLESS | {"stream": stream})
        assert engine.held.wait(DEADLINE_S)
        connection.close()
        assert engine.stopped.wait(DEADLINE_S)
        server.wait_for(running=0, waiting=0)
        engine.release(server.portal)
        with server.openai() as client:
            assert client.completions.create(**ENDLESS, max_tokens=4).usage.completion_tokens == 4


def test_a_client_that_goes_before_its_request_is_whole(
    tiny: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", tiny.port), DEADLINE_S) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}"
        connection.sendall(f"{head}\r\nContent-Length: 50\r\n\r\n{{".encode())
    with tiny.openai() as client:
        assert client.chat.completions.create(**CHAT).choices
    assert not caplog.records


def test_requests_wait_their_turn_in_order() -> None:
    engine = Engine(hold_at=1)
    order: list[int] = []
    with running_server(engine.client, max_waiting=3) as server, server.openai() as client:

        def ask(number: int) -> None:
            list(client.completions.create(**ENDLESS, max_tokens=2, stream=True))
            order.append(number)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for number, thread in enumerate(threads):
            thread.start()
            server.wait_for(running=1, waiting=number)
        leaver = server.begin("/completions", ENDLESS)
        server.wait_for(running=1, waiting=3)
        with pytest.raises(openai.RateLimitError) as busy:
            client.completions.create(**ENDLESS)
        assert busy.value.code == "queue_full"
        assert busy.value.response.headers["retry-after"] == "1"
        leaver.close()
        server.wait_for(running=1, waiting=2)
        engine.release(server.portal)
        for thread in threads:
            thread.join(DEADLINE_S)
    assert order == [0, 1, 2]


def test_an_engine_that_the_app_uses_itself_is_busy() -> None:
    engine = Engine(hold_at=1)
    with running_server(engine.client) as server, server.openai() as client:
        own = server.portal.start_task_soon(lambda: _own(server))
        assert engine.held.wait(DEADLINE_S)
        with pytest.raises(openai.RateLimitError) as busy:
            client.completions.create(**ENDLESS)
        assert busy.value.code == "engine_busy"
        engine.release(server.portal)
        assert own.result(DEADLINE_S) == 3


async def _own(server: Server) -> int:
    async with server.client.stream(prompt_token_ids=PROMPT, max_tokens=3) as answer:
        return len((await answer.final()).token_ids)


def test_a_client_that_sleeps_is_unavailable(tiny: Server) -> None:
    tiny.portal.call(tiny.client.suspend)
    try:
        with tiny.openai() as client, pytest.raises(openai.InternalServerError) as asleep:
            client.chat.completions.create(**CHAT)
    finally:
        tiny.portal.call(tiny.client.resume)
    assert (asleep.value.status_code, asleep.value.code) == (503, "suspended")


def test_an_error_before_the_first_token_has_a_status() -> None:
    engine = Engine(fail_at=1)
    with running_server(engine.client) as server, server.openai() as client:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as failed:
                client.completions.create(**ENDLESS, stream=stream)
            assert (failed.value.status_code, failed.value.code) == (500, "broken_engine")
            assert failed.value.response.headers["x-should-retry"] == "false"


def test_an_error_in_mid_stream_is_an_event() -> None:
    engine = Engine(fail_at=len(PROMPT) + 30)
    with running_server(engine.client) as server, server.openai() as client:
        pieces = []
        stream = client.completions.create(**ENDLESS, stream=True)
        with pytest.raises(openai.APIError, match="has failed") as failed:
            pieces.extend(chunk.choices[0].text for chunk in stream)
        assert failed.value.code == "broken_engine"
        assert failed.value.type == "server_error"
        assert len(pieces) > 3
        with pytest.raises(openai.InternalServerError, match="has failed"):
            client.completions.create(**ENDLESS)


def test_the_servers_end_is_told_to_who_listens() -> None:
    engine = Engine(hold_at=len(PROMPT) + 30)
    connections = []
    with running_server(engine.client) as server:
        connections.append(server.begin("/completions", ENDLESS | {"stream": True}))
        running = connections[0].getresponse()  # it has begun
        assert engine.held.wait(DEADLINE_S)
        connections.append(server.begin("/completions", ENDLESS))
        server.wait_for(running=1, waiting=1)
        server.end()
        waiting = connections[1].getresponse()
        *_, last = running.read().split(b"\n\n")[:-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "server_ending"
        assert waiting.status == 503
        assert json.loads(waiting.read())["error"]["code"] == "server_ending"
        for connection in connections:
            connection.close()
