"""The WebSocket form of the messages: both ways, both forms, and what is refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from google.rpc import code_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from segue_protocol import frames
from segue_protocol.errors import (
    CODES,
    InvalidRequest,
    Overloaded,
    ProtocolError,
    SegueError,
    Unavailable,
)
from segue_protocol.frames import Form, Frame
from segue_protocol.sampling import Sampling
from segue_protocol.streams import MAX_MESSAGE_BYTES
from segue_protocol.wire import public

REQUESTS = [
    public.GenerateRequest(
        start=public.Start(
            request_id="é",
            prompt_token_ids=public.TokenIds(ids=[0, 1, 2**32 - 1]),
            sampling=Sampling(seed=2**64 - 1, logit_bias={3: -1.5}, stop_token_ids=(2,)).to_wire(),
        )
    ),
    public.GenerateRequest(takeover=public.Takeover(index=7, prefix_hash=bytes(range(32)))),
    public.GenerateRequest(credit=public.Credit()),
    public.GenerateRequest(),
]
RESPONSES = [
    public.GenerateResponse(tokens=public.Tokens(index=0, ids=[0, 5], text="\u2028\0“")),
    public.GenerateResponse(finish=public.Finish(reason=public.FINISH_REASON_STOP, length=3)),
    public.GenerateResponse(heartbeat=public.Heartbeat(sequence=2**64 - 1)),
    public.GenerateResponse(),
]
every_form = pytest.mark.parametrize("form", Form)


@every_form
def test_messages_survive_the_way(form: Form) -> None:
    for request in REQUESTS:
        assert frames.decode_request(frames.encode_request(request, form), form) == request
    for response in RESPONSES:
        assert frames.decode_response(frames.encode_response(response, form), form) == response


def test_json_is_what_a_browser_expects() -> None:
    frame = frames.encode_response(RESPONSES[0], Form.JSON)
    assert json.loads(frame) == {
        "response": {"tokens": {"index": 0, "ids": [0, 5], "text": "\u2028\0“", "logprobs": []}}
    }
    frame = frames.encode_error(Overloaded("busy", retry_after_s=1.5), Form.JSON)
    assert json.loads(frame) == {
        "error": {
            "code": "RESOURCE_EXHAUSTED",
            "reason": "OVERLOADED",
            "message": "busy",
            "retryAfterS": 1.5,
        }
    }
    by_hand = '{"start": {"prompt_text": "a", "limits": {"maxTokens": 3}}}'
    assert frames.decode_request(by_hand, Form.JSON).start.limits.max_tokens == 3


def test_only_the_cloud_may_say_more_than_is_known() -> None:
    with pytest.raises(ProtocolError, match="maxTokns"):
        frames.decode_request('{"start": {"limits": {"maxTokns": 3}}}', Form.JSON)
    newer = '{"response": {"tokens": {"ids": [1], "mood": "good"}}}'
    assert frames.decode_response(newer, Form.JSON).tokens.ids == [1]


@every_form
@pytest.mark.parametrize("error", [Unavailable("gone"), Overloaded("ü", retry_after_s=0.0)])
def test_an_error_frame_raises_its_error(form: Form, error: SegueError) -> None:
    with pytest.raises(type(error)) as raised:
        frames.decode_response(frames.encode_error(error, form), form)
    assert raised.value.message == error.message
    assert raised.value.retry_after_s == error.retry_after_s


MALFORMED: list[tuple[Form, Frame]] = [
    (Form.PROTO, b"\xff\xff"),
    (Form.PROTO, b"\x0a\x7f"),
    (Form.PROTO, "{}"),
    (Form.JSON, b"{}"),
    (Form.JSON, ""),
    (Form.JSON, "null"),
    (Form.JSON, "3"),
    (Form.JSON, '{"start": 3, "credit": {}}'),
    (Form.JSON, '{"credit": {"through": -1}}'),
    (Form.JSON, '{"credit": {"through": 1e99}}'),
    (Form.JSON, '{"credit": {}, "cancel": {}}'),
    (Form.JSON, '{"start": {"modelName": "\\ud800"}}'),
    (Form.JSON, '{"start": {"model": "\\ud800"}}'),
    (Form.JSON, "[" * 100_000),
    (Form.JSON, '{"start":' * 100_000),
]


@pytest.mark.parametrize(("form", "frame"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_frame_is_a_typed_error(form: Form, frame: Frame) -> None:
    with pytest.raises(ProtocolError) as refused:
        frames.decode_request(frame, form)
    assert refused.value.reason == "MALFORMED_FRAME"


KEYS = st.sampled_from(
    ("start", "credit", "sampling", "logitBias", "ids", "promptTokenIds", "seed", "response", "1")
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.binary() | st.text(st.characters(codec=None)) | JSON_VALUES.map(json.dumps))
def test_whatever_comes_is_a_message_or_a_typed_error(frame: Frame) -> None:
    for form in Form:
        for decode in (frames.decode_request, frames.decode_response):
            with contextlib.suppress(SegueError):
                decode(frame, form)


@every_form
def test_size_limits(form: Form) -> None:
    text = "a" * (MAX_MESSAGE_BYTES + 1)
    with pytest.raises(InvalidRequest) as refused:
        frames.encode_request(public.GenerateRequest(start=public.Start(prompt_text=text)), form)
    assert refused.value.reason == "MESSAGE_TOO_LARGE"
    frame: Frame = text if form is Form.JSON else text.encode()
    with pytest.raises(InvalidRequest, match=str(MAX_MESSAGE_BYTES)):
        frames.decode_request(frame, form)
    with pytest.raises(ProtocolError, match=str(MAX_MESSAGE_BYTES)):
        frames.decode_response(frame, form)


def test_close_codes() -> None:
    assert [code_pb2.Code.Value(code) for code in CODES] == list(range(len(CODES)))
    assert frames.close_code(Unavailable("gone")) == 4414
    meant = frames.from_close(4408, "TTFT_DEADLINE")
    assert isinstance(meant, Overloaded)
    assert meant.reason == "TTFT_DEADLINE"
    assert frames.from_close(1000, "") is None
    assert isinstance(frames.from_close(1009, "too big"), InvalidRequest)
    assert isinstance(frames.from_close(1007, "no text"), ProtocolError)
    for code in (None, 1001, 1006, 1011, 3000, 4400, 4417):
        meant = frames.from_close(code, "")
        assert isinstance(meant, Unavailable)
        assert meant.reason == "CONNECTION_LOST"


def test_a_long_reason_fits_a_close_frame() -> None:
    error = Unavailable("gone", reason="Ü" * 100)
    assert len(frames.close_reason(error).encode()) <= 123
    assert frames.close_reason(error) == "Ü" * 61


def test_an_error_in_a_plain_answer() -> None:
    body = frames.to_json(frames.to_wire(Unavailable("none yet", reason="NO_WORKER")))
    found = frames.error_from_json(body)
    assert isinstance(found, Unavailable)
    assert found.reason == "NO_WORKER"
    for foreign in ("", "<html>", "{}", '{"code": "TEAPOT"}', '{"error": "x"}'):
        assert frames.error_from_json(foreign) is None
