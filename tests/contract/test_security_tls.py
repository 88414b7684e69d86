"""TLS between device and gateway, on both transports: who is trusted, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from segue_cloud.security.tls import PUBLIC_SETTINGS, Tls
from segue_device import Credentials
from segue_device.transports import transport_for
from segue_protocol.errors import InvalidRequest, SegueError, Unauthenticated, Unavailable
from segue_protocol.wire import public
from tests.certificates import Authority, Pair
from tests.contract.transports import Rig, ids_of, read_until, rig, run

both = pytest.mark.parametrize("kind", ["grpc", "websocket"])


@dataclass(frozen=True)
class Pki:
    """Two authorities; `ours` issued everything but `stranger`."""

    ours: Authority
    other: Authority
    gateway: Pair
    expired: Pair
    elsewhere: Pair
    device: Pair
    expired_device: Pair
    stranger: Pair

    def tls(self, pair: Pair, *, asks: bool = False) -> Tls:
        tls = Tls.load(
            str(pair.certificate),
            str(pair.key),
            str(self.ours.file) if asks else "",
            PUBLIC_SETTINGS,
        )
        assert tls is not None
        return tls


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory = tmp_path_factory.mktemp("pki")
    ours, other = Authority(directory, "ours"), Authority(directory, "other")
    return Pki(
        ours,
        other,
        gateway=ours.issue("gateway", "127.0.0.1", "localhost"),
        expired=ours.issue("expired", "127.0.0.1", expired=True),
        elsewhere=ours.issue("elsewhere", "elsewhere.example"),
        device=ours.issue("device"),
        expired_device=ours.issue("expired-device", expired=True),
        stranger=other.issue("stranger"),
    )


def _shown(authority: Authority, pair: Pair | None = None) -> Credentials:
    if pair is None:
        return Credentials(ca_file=authority.file)
    return Credentials(ca_file=authority.file, certificate_file=pair.certificate, key_file=pair.key)


async def _answer(each: Rig, credentials: Credentials) -> list[int]:
    stream = await each.transport(credentials=credentials).open()
    await stream.send(each.start())
    return ids_of(await read_until(stream, "finish"))


async def _refusals(each: Rig, credentials: Credentials | None) -> list[SegueError]:
    """What both calls raise."""
    found = []
    transport = each.transport(credentials=credentials)
    with pytest.raises(SegueError) as raised:
        await transport.get_model(public.GetModelRequest())
    found.append(raised.value)
    with pytest.raises(SegueError) as raised:
        await (await transport.open()).receive()
    found.append(raised.value)
    return found


@both
@pytest.mark.parametrize("asks", [False, True], ids=["tls", "mtls"])
def test_an_answer_over_tls(pki: Pki, kind: str, asks: bool) -> None:
    async def main() -> None:
        async with rig(kind, tls=pki.tls(pki.gateway, asks=asks)) as each:
            shown = _shown(pki.ours, pki.device if asks else None)
            assert await each.transport(credentials=shown).get_model(public.GetModelRequest())
            assert len(await _answer(each, shown)) == 40

    run(main())


@both
@pytest.mark.parametrize(
    ("pair", "authority", "named"),
    [
        ("gateway", "other", "unable to get local issuer"),
        ("expired", "ours", "expired"),
        ("elsewhere", "ours", "(?i)hostname|mismatch"),
    ],
    ids=["wrong authority", "expired", "wrong host"],
)
def test_a_cloud_that_is_not_trusted(
    pki: Pki, kind: str, pair: str, authority: str, named: str
) -> None:
    async def main() -> None:
        async with rig(kind, tls=pki.tls(getattr(pki, pair))) as each:
            for error in await _refusals(each, _shown(getattr(pki, authority))):
                assert isinstance(error, Unauthenticated)
                assert error.reason == "CLOUD_CERTIFICATE"
                with pytest.raises(Unauthenticated, match=named):
                    raise error

    run(main())


@both
@pytest.mark.parametrize("pair", [None, "stranger", "expired_device"])
def test_a_device_that_is_not_trusted(pki: Pki, kind: str, pair: str | None) -> None:
    async def main() -> None:
        async with rig(kind, tls=pki.tls(pki.gateway, asks=True)) as each:
            shown = _shown(pki.ours, None if pair is None else getattr(pki, pair))
            for error in await _refusals(each, shown):
                assert isinstance(error, Unavailable)
                assert "certificate_file" in error.message
            assert len(await _answer(each, _shown(pki.ours, pki.device))) == 40

    run(main())


@both
def test_plain_text_to_tls_and_tls_to_plain_text(pki: Pki, kind: str) -> None:
    async def main() -> None:
        async with rig(kind, tls=pki.tls(pki.gateway)) as each:
            for error in await _refusals(each, None):
                assert isinstance(error, Unavailable)
                assert "may expect TLS" in error.message
        async with rig(kind) as each:
            for error in await _refusals(each, _shown(pki.ours)):
                assert isinstance(error, Unavailable)
                assert "plain text" in error.message

    run(main())


def test_files_that_do_not_serve_are_named(pki: Pki, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    certificate, key = str(pki.gateway.certificate), str(pki.gateway.key)
    assert Tls.load("", "", "", PUBLIC_SETTINGS) is None
    for given, named in (
        ((certificate, "", ""), "tls_key is missing"),
        (("", "", str(pki.ours.file)), "tls_certificate is missing"),
        ((certificate, str(pki.device.key), ""), "key"),
        ((str(junk), key, ""), "junk.pem"),
        ((certificate, key, str(tmp_path / "none.pem")), "none.pem"),
    ):
        with pytest.raises(InvalidRequest, match=named):
            Tls.load(*given, PUBLIC_SETTINGS)
    for shown, named in (
        (Credentials(ca_file=junk), "junk.pem"),
        (Credentials(certificate_file=certificate, key_file=pki.device.key), "certificate_file"),
    ):
        for address in ("127.0.0.1:1", "wss://127.0.0.1:1"):
            with pytest.raises(InvalidRequest, match=named):
                transport_for(address, credentials=shown)
    with pytest.raises(InvalidRequest, match="go together"):
        Credentials(certificate_file=certificate)
    with pytest.raises(InvalidRequest, match="wss://"):
        transport_for("ws://127.0.0.1:1", credentials=_shown(pki.ours))


def test_a_token_is_not_shown_and_not_sent_in_plain_text() -> None:
    secret = Credentials(token="a-secret-of-the-device")
    assert "secret" not in repr(secret)
    with pytest.raises(InvalidRequest, match="plain text"):
        transport_for("ws://cloud.example", credentials=secret)
    for token in ("two words", "line\n", "ключ"):
        with pytest.raises(InvalidRequest) as raised:
            Credentials(token=token)
        assert token not in raised.value.message
