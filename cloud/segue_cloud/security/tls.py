"""PEM files of one listener or one side of a link, read once and checked by name."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from segue_protocol.errors import InvalidRequest

# The names of the three files as settings, in the order of `Tls.load`.
PUBLIC_SETTINGS = ("tls_certificate", "tls_key", "tls_client_ca")
WORKER_SETTINGS = ("worker_tls_certificate", "worker_tls_key", "worker_tls_ca")


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate with its key, and the authority that peers must come from.

    Files are PEM. With `ca` a peer without a certificate of that authority is
    refused; without it nobody is asked for one.
    """

    certificate: str
    key: str
    ca: str = ""

    @classmethod
    def load(cls, certificate: str, key: str, ca: str, names: tuple[str, str, str]) -> Tls | None:
        """From settings; None where none is given.

        Raises InvalidRequest by the setting's name (`names`, in the same order)
        on half a pair, on a file that cannot be read or holds something else,
        and on a key that belongs to another certificate.
        """
        if not (certificate or key or ca):
            return None
        for name, value in zip(names, (certificate, key), strict=False):
            if not value:
                raise InvalidRequest(f"{name} is missing; TLS needs {names[0]} and {names[1]}")
        tls = cls(certificate, key, ca)
        try:
            tls.server_context()
        except (ssl.SSLError, OSError, ValueError) as error:
            given = ", ".join(value for value in (certificate, key, ca) if value)
            raise InvalidRequest(
                f"TLS files {given}: {error}; expected PEM files, the key that of the certificate"
            ) from error
        return tls

    def server_context(self) -> ssl.SSLContext:
        """For a listener that is not gRPC's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key, password=_no_password)
        if self.ca:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a connection to such a listener, of the same authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key, password=_no_password)
        context.load_verify_locations(self.ca)
        return context

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC listener."""
        pair = (Path(self.key).read_bytes(), Path(self.certificate).read_bytes())
        return grpc.ssl_server_credentials(
            [pair],
            root_certificates=Path(self.ca).read_bytes() if self.ca else None,
            require_client_auth=bool(self.ca),
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a channel to a listener of the same authority."""
        return grpc.ssl_channel_credentials(
            Path(self.ca).read_bytes() if self.ca else None,
            Path(self.key).read_bytes(),
            Path(self.certificate).read_bytes(),
        )


def _no_password() -> str:
    """Instead of a prompt on the terminal, which would hang a service."""
    raise ValueError("the key is encrypted, and nobody is here to type its password")
