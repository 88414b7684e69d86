"""Every error a user of Segue can meet, one tree.

::

    SegueError                    code                 whose fault       retry?
    ├── InvalidRequest            INVALID_ARGUMENT     caller            no
    ├── OutOfRange                OUT_OF_RANGE         caller            no
    │   └── ContextTooLong        OUT_OF_RANGE         caller            no
    ├── IdentityMismatch          FAILED_PRECONDITION  set-up            no
    ├── Unsupported               UNIMPLEMENTED        set-up            no
    ├── NotFound                  NOT_FOUND            caller            no
    ├── Unauthenticated           UNAUTHENTICATED      caller            no
    ├── PermissionDenied          PERMISSION_DENIED    caller            no
    ├── Aborted                   ABORTED              neither           no
    ├── Cancelled                 CANCELLED            caller            no
    ├── Overloaded                RESOURCE_EXHAUSTED   cloud, for now    after retry_after_s
    ├── Unavailable               UNAVAILABLE          cloud or network  yes
    ├── DeadlineExceeded          DEADLINE_EXCEEDED    cloud or network  yes
    ├── TransferError             DATA_LOSS            cloud             yes (prefill again)
    └── InternalError             INTERNAL             Segue             no
        └── ProtocolError         INTERNAL             the peer          no

Anything raised while an answer is being read carries what was made so far in
``partial`` (token ids). ``reason`` is a stable upper-case word for programs,
``param`` the name of the request's field at fault where there is one; the
message names what is wrong, what was expected and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

DOMAIN = "segue"

# The names of gRPC's status codes; a name's place is its number.
CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


class SegueError(Exception):
    """Root of the tree; never raised itself."""

    code: ClassVar[str] = "UNKNOWN"
    default_reason: ClassVar[str] = "UNKNOWN"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        retry_after_s: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.retry_after_s = retry_after_s
        self.param = param
        self.partial: Sequence[int] = ()


class InvalidRequest(SegueError):
    """The request contradicts its contract; sending it again changes nothing."""

    code = "INVALID_ARGUMENT"
    default_reason = "INVALID_REQUEST"


class OutOfRange(SegueError):
    """An index or a length lies outside what exists."""

    code = "OUT_OF_RANGE"
    default_reason = "OUT_OF_RANGE"


class ContextTooLong(OutOfRange):
    """Prompt and answer do not fit the model's context."""

    default_reason = "CONTEXT_TOO_LONG"


class IdentityMismatch(SegueError):
    """The two models may not share a log; the message names the factor."""

    code = "FAILED_PRECONDITION"
    default_reason = "TOKENIZER_MISMATCH"


class Unsupported(SegueError):
    """A valid wish this build cannot fulfil."""

    code = "UNIMPLEMENTED"
    default_reason = "UNSUPPORTED"


class NotFound(SegueError):
    """No such model or generation here."""

    code = "NOT_FOUND"
    default_reason = "NOT_FOUND"


class Unauthenticated(SegueError):
    """No credentials, or unknown ones, on either side."""

    code = "UNAUTHENTICATED"
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(SegueError):
    """Known, but not allowed."""

    code = "PERMISSION_DENIED"
    default_reason = "PERMISSION_DENIED"


class Aborted(SegueError):
    """Ended by a newer stream of the same generation or by a worker's end."""

    code = "ABORTED"
    default_reason = "ABORTED"


class Cancelled(SegueError):
    """The caller ended it."""

    code = "CANCELLED"
    default_reason = "CANCELLED"


class Overloaded(SegueError):
    """Everything is busy; ``retry_after_s`` says when to ask again."""

    code = "RESOURCE_EXHAUSTED"
    default_reason = "OVERLOADED"
    retryable = True


class Unavailable(SegueError):
    """Nobody there: no worker, no gateway, or a connection that broke."""

    code = "UNAVAILABLE"
    default_reason = "UNAVAILABLE"
    retryable = True


class DeadlineExceeded(SegueError):
    """A named time budget ran out."""

    code = "DEADLINE_EXCEEDED"
    default_reason = "DEADLINE_EXCEEDED"
    retryable = True


class TransferError(SegueError):
    """A KV transfer was stale, corrupt or of another layout; nothing of it is used."""

    code = "DATA_LOSS"
    default_reason = "KV_TRANSFER"
    retryable = True


class InternalError(SegueError):
    """A bug or a broken peer."""

    code = "INTERNAL"
    default_reason = "INTERNAL"


class ProtocolError(InternalError):
    """The peer sent what the protocol does not allow at this point."""

    default_reason = "PROTOCOL"


def _leaves(root: type[SegueError]) -> list[type[SegueError]]:
    return [root] + [found for child in root.__subclasses__() for found in _leaves(child)]


def from_code(
    code: str, message: str, *, reason: str | None = None, retry_after_s: float | None = None
) -> SegueError:
    """The error class that belongs to a status code and reason.

    Two classes may share a code; the one whose default reason matches wins.
    An unknown code becomes :class:`InternalError`.
    """
    sharing = [kind for kind in _leaves(SegueError)[1:] if kind.code == code]
    exact = [kind for kind in sharing if kind.default_reason == reason]
    kind = (exact or sharing or [InternalError])[0]
    return kind(message, reason=reason, retry_after_s=retry_after_s)
