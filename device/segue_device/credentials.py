"""What a device shows a cloud, and by what it knows the cloud."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from segue_protocol.errors import InvalidRequest

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A bearer token and PEM files; whatever is empty is not used.

    `ca_file` holds the authorities a cloud's certificate may come from, in place
    of the system's. `certificate_file` and `key_file` are the device's own, for
    a cloud that asks. A file of either kind asks for TLS, on loopback too.
    Raises InvalidRequest naming the field at fault.
    """

    token: str = field(default="", repr=False)
    ca_file: str | Path = ""
    certificate_file: str | Path = ""
    key_file: str | Path = ""

    def __post_init__(self) -> None:
        if not (self.token.isascii() and self.token.isprintable()) or " " in self.token:
            raise InvalidRequest("the token holds spaces, line ends or characters beyond ASCII")
        if bool(self.certificate_file) is not bool(self.key_file):
            raise InvalidRequest(
                "certificate_file and key_file go together; one of them is missing"
            )

    @property
    def asks_for_tls(self) -> bool:
        """Whether there is a file, so that plain text is not meant."""
        return bool(self.ca_file or self.certificate_file)

    @property
    def authorization(self) -> str:
        """The value of the header; empty without a token."""
        return f"Bearer {self.token}" if self.token else ""

    def ssl_context(self) -> ssl.SSLContext:
        """For a TLS connection to a cloud. Raises InvalidRequest naming the file."""
        context = _checked(
            "ca_file",
            self.ca_file,
            lambda: ssl.create_default_context(cafile=self.ca_file or None),
        )
        if self.certificate_file:
            _checked(
                "certificate_file and key_file",
                self.certificate_file,
                lambda: context.load_cert_chain(
                    self.certificate_file, self.key_file, password=_no_password
                ),
            )
        return context

    def read_files(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """The contents of CA, key and certificate. Raises InvalidRequest as above."""
        self.ssl_context()  # the better error: it knows which file and what it lacks
        ca, key, certificate = (
            Path(file).read_bytes() if file else None
            for file in (self.ca_file, self.key_file, self.certificate_file)
        )
        return ca, key, certificate


def _checked(what: str, file: str | Path, load: Callable[[], Loaded]) -> Loaded:
    try:
        return load()
    except (OSError, ValueError) as error:  # ssl's errors are an OSError
        raise InvalidRequest(
            f"{what} {str(file)!r}: {error}; expected PEM, the key that of the certificate"
        ) from error


def _no_password() -> str:
    """Instead of a prompt on the terminal."""
    raise ValueError("the key is encrypted; give one that is not")
