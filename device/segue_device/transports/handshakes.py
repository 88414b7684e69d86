"""Why no connection came about, in words a user can act on.

Libraries tell it in texts of their own; a peer that does not like our
certificate, or expected TLS, mostly just hangs up.
"""

from __future__ import annotations

from segue_protocol.errors import SegueError, Unauthenticated, Unavailable

_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
_PLAIN_TEXT = ("WRONG_VERSION_NUMBER", "record layer failure")
_HUNG_UP = ("Socket closed", "valid HTTP response", "reset by peer", "ConnectionReset", "EOF")
# Not the words of a connection that was there and broke.
_CONNECTING = ("failed to connect", "no cloud answers")


def explain(error: SegueError, *, tls: bool) -> SegueError:
    """`error` itself, or what is known beyond an `Unavailable` of the library's.

    `tls`: whether that is what we spoke.
    """
    said = error.message
    if error.reason != Unavailable.default_reason or not any(each in said for each in _CONNECTING):
        return error
    if any(each in said for each in _UNTRUSTED):
        return Unauthenticated(
            f"the cloud's certificate is not trusted: {said}; pass the authority that issued it "
            "as ca_file, and call the cloud by a name that its certificate holds",
            reason="CLOUD_CERTIFICATE",
        )
    if tls and any(each in said for each in _PLAIN_TEXT):
        return Unavailable(
            f"the cloud speaks plain text where TLS was expected: {said}; check the port",
            reason="NOT_TLS",
        )
    if any(each in said for each in _HUNG_UP):
        why = (
            "it may ask for a certificate of a device that it knows (certificate_file and "
            "key_file), or speak plain text there"
            if tls
            else "it may expect TLS (wss://, or ca_file)"
        )
        return Unavailable(f"the cloud hung up at once: {said}; {why}", reason="HUNG_UP_AT_ONCE")
    return error
