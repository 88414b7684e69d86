"""Segue's errors as HTTP statuses and OpenAI's error objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from segue_protocol import errors
from segue_protocol.errors import SegueError

# By code, except where the reason says more. 499: the client closed the request.
_STATUS = {
    errors.InvalidRequest.code: 400,
    errors.OutOfRange.code: 400,
    errors.Unsupported.code: 400,
    errors.Unauthenticated.code: 401,
    errors.PermissionDenied.code: 403,
    errors.NotFound.code: 404,
    errors.Overloaded.code: 429,
    errors.Cancelled.code: 499,
    errors.Unavailable.code: 503,
    errors.TransferError.code: 503,
    errors.DeadlineExceeded.code: 504,
}
_STATUS_BY_REASON = {"BODY_TOO_LARGE": 413, "ENGINE_BUSY": 429, "SUSPENDED": 503}

# What programs written for OpenAI look for.
_CODES = {
    errors.ContextTooLong.default_reason: "context_length_exceeded",
    errors.Unauthenticated.default_reason: "invalid_api_key",
}


@dataclass(frozen=True, slots=True)
class HttpError:
    """One error as it goes out. `headers` tell a client whether and when to try again."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @classmethod
    def of(cls, error: SegueError, *, param: str | None = None) -> HttpError:
        """`param` is the field at fault where the error names none."""
        status = _STATUS_BY_REASON.get(error.reason) or _STATUS.get(error.code, 500)
        retryable = error.retryable or status in (429, 503)
        # The openai package tries again after 409, 429 and 5xx unless told not to.
        headers = {"x-should-retry": "true" if retryable else "false"}
        if error.retry_after_s is not None or status == 429:
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 0)))
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        code = _CODES.get(error.reason, error.reason.lower())
        return cls(status, _body(status, error.message, code, error.param or param), headers)

    @classmethod
    def plain(cls, status: int, message: str) -> HttpError:
        """An HTTP error that is none of Segue's, such as a wrong method."""
        return cls(status, _body(status, message, None, None), {})

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, dict(self.headers))


def _body(status: int, message: str, code: str | None, param: str | None) -> Mapping[str, Any]:
    if status >= 500:
        kind = "server_error"
    else:
        kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def server_failed() -> SegueError:
    """What a client is told of a bug."""
    return errors.InternalError("the server failed; its log says why")
