"""What a user sets about the ingress reaches the process that takes the events: the largest event, and https."""

import asyncio
import json
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventing.apiserver.certificates import CertificatePaths, ensure_certificates
from eventing.errors import StartError
from eventing.event import Event
from eventing.resources.messaging import CHANNEL
from eventing.runtime.ingress_tls import IngressTls, trust_anchors
from eventing.runtime.mesh import Mesh
from eventing.runtime.settings import IngressSettings
from eventing.testing.sinks import Sink
from tests.support.data_plane import read_response
from tests.support.manifests import CHANNEL as ORDERS
from tests.support.manifests import subscription

EVENT = Event({"specversion": "1.0", "id": "1", "source": "/shop", "type": "t"}, b'{"n":1}')
HEAD = b"POST /default/%b HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 7\r\nce-source: /s\r\nce-type: t\r\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> CertificatePaths:
    """A certificate for 127.0.0.1 and localhost, and the private authority that signed it."""
    return ensure_certificates(tmp_path_factory.mktemp("pki"), ["127.0.0.1", "localhost"])


def settings(pair: CertificatePaths, **more: int) -> IngressSettings:
    return IngressSettings(certificate=str(pair.server_cert), key=str(pair.server_key), ca=str(pair.ca_cert), **more)


@pytest.fixture
async def mesh(pair: CertificatePaths, sink: Sink, tmp_path: Path) -> AsyncIterator[Mesh]:
    """Speaks https and takes no more than 1,000 bytes. What goes into `orders` is relayed to `copies`, from there to the sink."""
    relay = f"""\
{ORDERS}---
{ORDERS.replace("orders", "copies")}---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {{name: relay}}
spec:
  channel: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: orders}}
  subscriber: {{ref: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: copies}}}}
---
{subscription(sink.url + "/", "printer").replace("name: orders", "name: copies")}"""
    (tmp_path / "relay.yaml").write_text(relay)
    async with Mesh(manifests=[str(tmp_path / "relay.yaml")], ingress=settings(pair, max_event_bytes=1000)) as mesh:
        yield mesh


async def until_ready(mesh: Mesh) -> None:
    client = mesh.client()
    async with asyncio.timeout(30):
        while True:
            answer = await asyncio.to_thread(client.send, "default", "orders", EVENT)
            if answer.accepted:
                known = await asyncio.to_thread(client.trace, answer.receipt)
                if known["matches"][0]["deliveries"]:
                    break
            await asyncio.sleep(0.05)
    await asyncio.to_thread(client.__exit__, None, None, None)


async def test_events_come_in_by_https_and_go_from_channel_to_channel_by_it(
    mesh: Mesh, pair: CertificatePaths, sink: Sink
) -> None:
    assert mesh.ingress_url.startswith("https://127.0.0.1:")
    await until_ready(mesh)  # by `eventing send`'s own client, which trusts the authority because the mesh says so
    (received, *_) = await sink.received(1, within=20)
    assert received.event_id == "1"
    address = (await _get(mesh, CHANNEL.plural, "orders"))["status"]["address"]
    assert address["url"] == f"{mesh.ingress_url}/default/orders"
    assert (address["name"], address["CACerts"]) == ("https", pair.ca_cert.read_text())


async def _get(mesh: Mesh, plural: str, name: str) -> dict[str, dict[str, dict[str, str]]]:
    from eventing.kube import KubeClient
    from eventing.kube.cluster import load_kubeconfig

    client = KubeClient(load_kubeconfig(mesh.kubeconfig), user_agent="test")
    try:
        return dict(await client.get(CHANNEL, "default", name))
    finally:
        await client.aclose()


async def test_a_tls_client_gets_every_answer_and_nothing_else_is_spoken(mesh: Mesh, pair: CertificatePaths) -> None:
    port = int(mesh.ingress_url.rpartition(":")[2])
    trusting = ssl.create_default_context(cafile=str(pair.ca_cert))
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    for length, status in ((1000, 202), (1001, 413), (9_000_000, 413)):
        # The last one is refused while it still sends: it must be able to read why.
        reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.write(HEAD % b"orders" + b"content-length: %d\r\n\r\n" % length + b"x" * length)
        answer = await read_response(reader)
        assert answer.status == status
        if status == 413:
            assert "1000" in json.loads(answer.body)["detail"]
        writer.transport.abort()
        await asyncio.sleep(0)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("localhost", port, ssl=ssl.create_default_context())
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(HEAD % b"orders" + b"\r\n")
    assert b"HTTP" not in await reader.read()
    writer.transport.abort()
    await asyncio.sleep(0)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_curl_speaks_to_it(mesh: Mesh, pair: CertificatePaths) -> None:
    said = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--cacert", pair.ca_cert, "-o", "/dev/null", "-w", "%{http_code} %{scheme}", "-d", "x",
        *[part for name, value in EVENT.attributes.items() for part in ("-H", f"ce-{name}: {value}")],
        f"{mesh.ingress_url}/default/copies",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await said.communicate()
    assert out.decode().upper() == "202 HTTPS"


def test_a_new_certificate_is_used_and_a_bad_one_is_not(tmp_path: Path) -> None:
    first = ensure_certificates(tmp_path / "first", ["localhost"])
    second = ensure_certificates(tmp_path / "second", ["localhost"])
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def put(pair: CertificatePaths) -> None:
        certificate.write_bytes(pair.server_cert.read_bytes())
        key.write_bytes(pair.server_key.read_bytes())

    put(first)
    tls = IngressTls(IngressSettings(certificate=str(certificate), key=str(key)))
    assert _handshake(tls.context, first)
    assert not tls.refresh(), "nothing has changed"
    put(second)
    assert tls.refresh()
    assert _handshake(tls.context, second)
    key.write_bytes(first.server_key.read_bytes())
    for _ in range(2):
        with pytest.raises(StartError, match=r"tls\.crt and .*tls\.key are no certificate and its key"):
            tls.refresh()
        assert _handshake(tls.context, second), "the old one stays, whole"
    put(first)
    assert tls.refresh()
    assert _handshake(tls.context, first)
    key.unlink()
    with pytest.raises(StartError, match=r"tls\.key, for https of the ingress, cannot be read: No such file"):
        tls.refresh()


def _handshake(context: ssl.SSLContext, authority: CertificatePaths) -> bool:
    """Whether a client that trusts this authority alone comes through, in memory."""
    trusting = ssl.create_default_context(cafile=str(authority.ca_cert))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return client.version() in {"TLSv1.2", "TLSv1.3"}


def test_an_encrypted_key_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    pair = ensure_certificates(tmp_path, ["localhost"])
    key = load_pem_private_key(pair.server_key.read_bytes(), None)
    pair.server_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(StartError, match="is encrypted"):
        IngressTls(settings(pair))


def test_what_clients_must_trust(pair: CertificatePaths, tmp_path: Path) -> None:
    authority = pair.ca_cert.read_text()
    assert trust_anchors(IngressSettings()) == ""
    assert trust_anchors(settings(pair)) == authority
    assert trust_anchors(IngressSettings(certificate=str(pair.server_cert))) == "", "then the usual authorities are enough"
    chain = tmp_path / "chain.pem"
    chain.write_text(pair.server_cert.read_text() + authority)
    assert trust_anchors(IngressSettings(certificate=str(chain))) == authority
    chain.write_text("nonsense")
    with pytest.raises(StartError, match="holds no certificates"):
        trust_anchors(IngressSettings(certificate=str(chain)))


async def test_a_mesh_with_a_bad_certificate_does_not_start(pair: CertificatePaths) -> None:
    with pytest.raises(StartError, match=r"server\.crt"):
        async with Mesh(ingress=IngressSettings(certificate=str(pair.server_cert), key=str(pair.ca_key))):
            pass
