"""Deliveries over TLS, to real certificates of good and bad kinds: F19. In virtual time."""

import asyncio
import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventing.apiserver.certificates import ensure_certificates
from eventing.testing.sinks import Answer, Sink
from tests.support.data_plane import DataPlaneRig, make_event, subscriber
from tests.support.virtual_plane import REPLY, run


class Server:
    """A certificate of an authority of its own, and the authority to trust for it."""

    def __init__(self, directory: Path, *, host: str = "127.0.0.1", now: datetime | None = None) -> None:
        paths = ensure_certificates(directory, [host], now=now)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(paths.server_cert, paths.server_key)
        self.authority = paths.ca_cert.read_text()


def destination(uid: str, url: str, authority: str, **options: Any) -> dict[str, Any]:
    return {**subscriber(uid, url, **options), "subscriberCACerts": authority}


async def answer_in_plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
    writer.close()


def test_an_authority_of_its_own_for_each_destination(tmp_path: Path) -> None:
    """Subscriber, reply and dead-letter sink may each be somebody else's."""
    servers = [Server(tmp_path / name) for name in ("subscriber", "reply", "dead")]

    async def test(mesh: DataPlaneRig, _sink: Sink) -> None:
        async with Sink(tls=servers[0].context) as sub, Sink(tls=servers[1].context) as rep, Sink(tls=servers[2].context) as dead:
            entry = destination("s", sub.url + "/", servers[0].authority, reply=rep.url + "/", retry=0)
            entry["replyCACerts"] = servers[1].authority
            entry["delivery"] = {"retry": 0, "deadLetterSink": {"uri": dead.url + "/", "CACerts": servers[2].authority}}
            mesh.channel("orders", entry)
            sub.script("/", Answer.reply(REPLY), Answer(500), Answer())
            assert await mesh.ended(await mesh.accepted(make_event("1"))) == ("delivered", "")
            assert [received.event_id for received in rep.requests] == ["r"]
            assert await mesh.ended(await mesh.accepted(make_event("2"))) == ("dead-lettered", "Exhausted")
            assert [received.event_id for received in dead.requests] == ["2"]
            assert await mesh.ended(await mesh.accepted(make_event("3"))) == ("delivered", "")
            assert len({received.connection for received in sub.requests}) == 1, "it is kept"

    run(test)


@pytest.mark.parametrize(
    "case", ["another authority", "no authority", "another name", "expired", "old protocol", "no TLS", "no PEM"]
)
def test_what_is_not_to_be_trusted_is_not_delivered_to_and_the_reason_says_why(case: str, tmp_path: Path) -> None:
    now = datetime.now(UTC) - timedelta(days=800) if case == "expired" else None
    server = Server(tmp_path / "server", host="elsewhere.example" if case == "another name" else "127.0.0.1", now=now)
    if case == "old protocol":
        server.context.set_ciphers("ALL:@SECLEVEL=0")
        server.context.options &= ~ssl.OP_NO_TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            server.context.minimum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            server.context.maximum_version = ssl.TLSVersion.TLSv1_1
    authority = {
        "another authority": Server(tmp_path / "other").authority,
        "no authority": "",
        "no PEM": "-----BEGIN CERTIFICATE-----\nnonsense\n",
    }.get(case, server.authority)
    why = {
        "another authority": "the certificate is not accepted: ",
        "no authority": "the certificate is not accepted: ",
        "another name": "the certificate is not accepted: IP address mismatch, certificate is not valid for '127.0.0.1'",
        "expired": "the certificate is not accepted: certificate has expired",
        "old protocol": "the connection was closed during the handshake",
        "no TLS": "wrong version number",
        "no PEM": "the CACerts of the destination are no certificates in PEM",
    }[case]

    async def test(mesh: DataPlaneRig, plain: Sink) -> None:
        async with Sink(tls=server.context) as secure, await asyncio.start_server(answer_in_plain, "127.0.0.1", 0) as unsafe:
            url = f"https://127.0.0.1:{unsafe.sockets[0].getsockname()[1]}" if case == "no TLS" else secure.url
            mesh.channel("orders", destination("s", url + "/", authority, retry=1, dead_letter=plain.url + "/dead"))
            receipt = await mesh.accepted(make_event())
            assert await mesh.ended(receipt, within=200, step=0.1) == ("dead-lettered", "Exhausted")
            attempts = (await mesh.deliveries(receipt))["s"]["attempts"]
            assert [attempt["error"].partition(":")[0] for attempt in attempts] == ["TLSError", "TLSError", ""]
            assert why in attempts[0]["error"]
            assert secure.requests == []
            (letter,) = plain.at("/dead")
            assert why in base64.b64decode(letter.attributes["knativeerrordata"]).decode()

    run(test)


def test_a_new_authority_is_used_from_the_next_attempt(tmp_path: Path) -> None:
    server, other = Server(tmp_path / "server"), Server(tmp_path / "other")

    async def test(mesh: DataPlaneRig, _sink: Sink) -> None:
        async with Sink(tls=server.context) as secure:
            mesh.channel("orders", destination("s", secure.url + "/", other.authority, backoff_delay="PT1M"))
            receipt = await mesh.accepted(make_event())
            while not (await mesh.deliveries(receipt))["s"]["attempts"]:
                await asyncio.sleep(0.01)
            mesh.channel("orders", destination("s", secure.url + "/", other.authority + server.authority, backoff_delay="PT1M"))
            assert await mesh.ended(receipt, within=200, step=0.5) == ("delivered", "")

    run(test)
