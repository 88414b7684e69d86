"""Version of the wire protocol, and the features both sides may rely on."""

from __future__ import annotations

from segue_protocol.wire import public

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 0
FEATURES = ("credit", "takeover", "resume")


def protocol_version() -> public.ProtocolVersion:
    """This build's version as a message."""
    return public.ProtocolVersion(
        major=PROTOCOL_MAJOR, minor=PROTOCOL_MINOR, features=list(FEATURES)
    )
