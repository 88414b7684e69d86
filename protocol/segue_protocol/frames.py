"""The WebSocket form of the messages: bytes or text, no sockets.

A client offers one of two subprotocols at ``GENERATE_PATH``: ``segue.v1.proto``
(binary protobuf) or ``segue.v1.json`` (text, the protobuf JSON mapping). Each
frame holds one message: a `GenerateRequest` on the way up, a `StreamFrame` on
the way down, whose last one may be an error. After an error frame the cloud
closes with :func:`close_code` and the error's reason; after `finish` with 1000.

A cloud that asks for a token takes it from the header ``Authorization: Bearer
TOKEN``. Pages in a browser cannot set headers: they offer, beside one of the
two, the subprotocol ``segue.bearer.`` + the token in base64url without padding
(:func:`bearer_subprotocol`), which is read and never chosen.

A WebSocket cannot be closed one way: a close frame from the device ends the
stream, and as on every transport that is no cancel.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from enum import Enum
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from segue_protocol.errors import (
    CODES,
    InvalidRequest,
    ProtocolError,
    SegueError,
    Unavailable,
    from_code,
)
from segue_protocol.streams import MAX_MESSAGE_BYTES, TOO_LARGE, require_size
from segue_protocol.wire import public

GENERATE_PATH = "/segue/v1/generate"
# A plain HTTP GET, answered with a `GetModelResponse` or a `StreamError` in JSON.
MODEL_PATH = "/segue/v1/model"

BEARER_PREFIX = "segue.bearer."

NORMAL_CLOSURE = 1000
PROTOCOL_VIOLATION = 1002
INVALID_TEXT = 1007
TOO_BIG = 1009
ERROR_BASE = 4400

MALFORMED = "MALFORMED_FRAME"
LONGEST_CLOSE_REASON_BYTES = 123  # RFC 6455: a control frame holds 125, the code takes two

Frame = str | bytes
MessageT = TypeVar("MessageT", bound=Message)


class Form(Enum):
    """How messages are written; the value is the subprotocol's name."""

    PROTO = "segue.v1.proto"
    JSON = "segue.v1.json"


# ---- device to cloud


def encode_request(request: public.GenerateRequest, form: Form) -> Frame:
    """Raises InvalidRequest when the frame exceeds MAX_MESSAGE_BYTES."""
    frame = _encode(request, form)
    require_size(len(frame))
    return frame


def decode_request(frame: Frame, form: Form) -> public.GenerateRequest:
    """Raises InvalidRequest on a frame that is too large, ProtocolError on a malformed one.

    Unknown JSON fields are refused: people write these by hand, and a
    misspelled setting must not be dropped in silence.
    """
    require_size(len(frame))
    return _decode(frame, form, public.GenerateRequest(), ignore_unknown_fields=False)


# ---- cloud to device


def encode_response(response: public.GenerateResponse, form: Form) -> Frame:
    """One response as a frame."""
    return _encode(public.StreamFrame(response=response), form)


def encode_error(error: SegueError, form: Form) -> Frame:
    """The last frame of a stream that failed."""
    return _encode(public.StreamFrame(error=to_wire(error)), form)


def decode_response(frame: Frame, form: Form) -> public.GenerateResponse:
    """Raises the error that an error frame carries, ProtocolError on a malformed frame."""
    if len(frame) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"the cloud sent a frame of {len(frame)} bytes, expected at most {MAX_MESSAGE_BYTES}",
            reason=TOO_LARGE,
        )
    # A newer cloud may say more than this build knows.
    decoded = _decode(frame, form, public.StreamFrame(), ignore_unknown_fields=True)
    if decoded.HasField("error"):
        raise from_wire(decoded.error)
    return decoded.response


# ---- tokens


def bearer_subprotocol(token: str) -> str:
    """What a page offers to show a token."""
    return BEARER_PREFIX + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def token_of(subprotocols: Sequence[str]) -> str:
    """The token among the subprotocols a client offers; empty if there is none."""
    for name in subprotocols:
        if name.startswith(BEARER_PREFIX):
            text = name.removeprefix(BEARER_PREFIX)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
            except ValueError:  # also what is no base64 and no ASCII
                return ""
    return ""


# ---- errors


def to_wire(error: SegueError) -> public.StreamError:
    """An error as a message."""
    return public.StreamError(
        code=error.code,
        reason=error.reason,
        message=error.message,
        retry_after_s=error.retry_after_s,
    )


def from_wire(error: public.StreamError) -> SegueError:
    """The error a message stands for."""
    return from_code(
        error.code,
        error.message,
        reason=error.reason or None,
        retry_after_s=error.retry_after_s if error.HasField("retry_after_s") else None,
    )


def error_from_json(body: str) -> SegueError | None:
    """The error in the body of a plain HTTP answer; None when the body is something else."""
    try:
        error = from_json(body, public.StreamError())
    except ProtocolError:
        return None
    return from_wire(error) if error.code in CODES else None


def close_code(error: SegueError) -> int:
    """The close code that follows an error frame: 4400 + the gRPC code's number."""
    return ERROR_BASE + CODES.index(error.code)


def close_reason(error: SegueError) -> str:
    """The close frame's text: the error's reason, cut to what fits."""
    return error.reason.encode()[:LONGEST_CLOSE_REASON_BYTES].decode(errors="ignore")


def from_close(code: int | None, reason: str) -> SegueError | None:
    """What a connection that the cloud closed without an error frame means.

    `code` None: no close frame came. Returns None after an orderly end.
    """
    if code == NORMAL_CLOSURE:
        return None
    if code == TOO_BIG:
        return InvalidRequest(
            f"the cloud refused a message as too large: {reason}", reason=TOO_LARGE
        )
    if code in (PROTOCOL_VIOLATION, INVALID_TEXT):
        return ProtocolError(f"the cloud refused what it was sent: {reason}", reason=MALFORMED)
    if code is not None and ERROR_BASE < code < ERROR_BASE + len(CODES):
        name = CODES[code - ERROR_BASE]
        return from_code(name, f"the cloud ended the stream: {reason}", reason=reason or None)
    how = "was lost" if code is None else f"ended with close code {code}"
    why = f": {reason}" if reason else ""
    return Unavailable(f"the connection to the cloud {how}{why}", reason="CONNECTION_LOST")


# ---- bytes and text


def to_json(message: Message) -> str:
    """The protobuf JSON mapping in ASCII on one line.

    Fields at their default are written too: to a browser `"index": 0` is kinder
    than a field that is missing.
    """
    return json_format.MessageToJson(
        message, indent=None, always_print_fields_with_no_presence=True
    )


def from_json(text: str, into: MessageT, *, ignore_unknown_fields: bool = True) -> MessageT:
    """Fill `into`, an empty message, and return it; ProtocolError on anything but its JSON."""
    try:
        return json_format.Parse(text, into, ignore_unknown_fields=ignore_unknown_fields)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise ProtocolError(f"a text is no {_name(into)}: {error}", reason=MALFORMED) from error


def _encode(message: Message, form: Form) -> Frame:
    return to_json(message) if form is Form.JSON else message.SerializeToString()


def _decode(frame: Frame, form: Form, into: MessageT, *, ignore_unknown_fields: bool) -> MessageT:
    if isinstance(frame, str) is not (form is Form.JSON):
        kind = "text" if isinstance(frame, str) else "binary"
        raise ProtocolError(f"a {kind} frame came over {form.value}", reason=MALFORMED)
    if isinstance(frame, str):
        return from_json(frame, into, ignore_unknown_fields=ignore_unknown_fields)
    try:
        into.ParseFromString(frame)
    except DecodeError as error:
        raise ProtocolError(f"a frame is no {_name(into)}: {error}", reason=MALFORMED) from error
    return into


def _name(message: Message) -> str:
    return str(message.DESCRIPTOR.name)
