"""The server on real sockets: what the other side sees of it, and how it stops. Time is virtual where it matters."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eventing.testing.clock import VirtualClock
from eventing.wire.server import HttpServer, Request, ServerLimits

POST = b"POST /a HTTP/1.1\r\nhost: x\r\n"


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@asynccontextmanager
async def serving(
    application: Callable[[Request], None], *, tls: ssl.SSLContext | None = None, **limits: Any
) -> AsyncIterator[tuple[HttpServer, "Clients"]]:
    server = HttpServer(application, limits=ServerLimits(**limits))
    sock = listener()
    await server.start(sock, tls)
    clients = Clients(sock.getsockname()[1])
    try:
        yield server, clients
    finally:
        await clients.aclose()
        await server.aclose(1.0)
        assert not server.connections


def accept(request: Request) -> None:
    request.respond(202)


class Clients:
    """Connections that end with the test."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writers: list[asyncio.StreamWriter] = []

    async def open(self, sent: bytes = b"", **options: Any) -> asyncio.StreamReader:
        host = "localhost" if options else "127.0.0.1"
        reader, writer = await asyncio.open_connection(host, self.port, **options)
        self.writers.append(writer)
        writer.write(sent)
        return reader

    async def aclose(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def everything(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(30):
        return await reader.read()


async def test_a_client_that_is_refused_in_the_middle_of_its_body_reads_why() -> None:
    """The server lingers: closed with bytes unread, TCP would reset the connection and the answer with it."""
    async with serving(accept, body_bytes=1000) as (_, clients):
        for head in (b"content-length: 9000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n7a1200\r\n"):
            reader = await clients.open(POST + head + b"x" * 8_000_000)
            assert (await everything(reader)).startswith(b"HTTP/1.1 413 ")


def test_time_limits_hold() -> None:
    clock = VirtualClock()

    async def main() -> None:
        async with serving(accept, head_s=10, body_s=60, idle_s=75) as (server, clients):
            cases = ((b"", b""), (b"POST", b"408"), (POST + b"content-length: 9\r\n\r\nx", b"408"), (POST + b"\r\n", b"202"))
            readers = [await clients.open(sent) for sent, _ in cases]
            for reader, (_, status) in zip(readers, cases, strict=True):
                answer = await everything(reader) if status != b"" else await reader.read()
                assert answer.split(b" ")[1:2] == ([status] if status else [])
                assert answer.count(b"HTTP/1.1") == bool(status)
            await asyncio.sleep(2)
            assert not server.connections
            assert 75 <= clock.elapsed < 90

    clock.run(main())


def test_a_slow_client_does_not_hold_up_another() -> None:
    """A12."""
    clock = VirtualClock()

    async def main() -> None:
        async with serving(accept) as (server, clients):
            for number in range(400):
                await clients.open(POST[: number % len(POST)])
            reader = await clients.open(POST + b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 202")
            assert clock.elapsed < 1
            await asyncio.sleep(16)
            assert len(server.connections) <= 1 + 400 // len(POST) + 1, "but those that have said nothing yet"
            await asyncio.sleep(80)
            assert not server.connections

    clock.run(main())


async def test_stopping_lets_answers_under_way_finish_and_takes_nothing_new() -> None:
    held: list[Request] = []
    async with serving(held.append) as (server, clients):
        idle = await clients.open(POST + b"\r\n")
        busy = await clients.open(POST + b"\r\n")
        async with asyncio.timeout(5):
            while len(held) < 2:
                await asyncio.sleep(0.001)
        held[0].respond(202)
        await server.stop_accepting()
        assert (await everything(idle)).startswith(b"HTTP/1.1 202")
        with pytest.raises(OSError):
            await clients.open()
        stopping = asyncio.create_task(server.aclose(5.0))
        held[1].respond(202)
        assert (await everything(busy)).startswith(b"HTTP/1.1 202")
        await stopping


async def test_stopping_does_not_wait_for_ever() -> None:
    async with serving(lambda _request: None) as (server, clients):
        reader = await clients.open(POST + b"\r\n")
        async with asyncio.timeout(5):
            while not server.connections:
                await asyncio.sleep(0.001)
            await server.aclose(0.05)
        with contextlib.suppress(ConnectionError):  # as good as a plain end
            assert await everything(reader) == b""


async def test_a_client_that_never_reads_makes_the_server_hold_little() -> None:
    answered = 0

    def answer(request: Request) -> None:
        nonlocal answered
        answered += 1
        request.respond(200, b"", b"x" * 10_000)

    async with serving(answer) as (server, clients):
        raw = socket.create_connection(("127.0.0.1", clients.port))
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(raw, (POST + b"\r\n") * 200_000))
        before = -1
        async with asyncio.timeout(20):
            while before != answered or not answered:
                before = answered
                await asyncio.sleep(0.1)
        (connection,) = server.connections
        transport: Any = connection._transport
        assert transport.get_write_buffer_size() < 64 << 20
        assert answered < 20_000
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        raw.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    where = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (where / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (where / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return where / "cert.pem", where / "key.pem"


async def test_https_when_given_a_certificate(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    client = ssl.create_default_context(cafile=certificate[0])
    async with serving(accept, tls=context, body_bytes=10) as (_, clients):
        for body, status in ((b"", b"202"), (b"x" * 11, b"413")):
            sent = POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            assert (await everything(await clients.open(sent, ssl=client))).split(b" ")[1] == status
        assert b"HTTP" not in await everything(await clients.open(POST + b"\r\n"))


@pytest.mark.skipif(subprocess.run(["which", "curl"], capture_output=True, check=False).returncode != 0, reason="no curl here")
async def test_curl_offers_http_2_and_its_body_arrives() -> None:
    got: list[bytes] = []

    def application(request: Request) -> None:
        got.append(request.body)
        request.respond(202)

    async with serving(application) as (_, clients):
        port = clients.port
        process = await asyncio.create_subprocess_exec(
            "curl", "-s", "--http2", "-d", "the body", f"http://127.0.0.1:{port}/", "--next", "-s", "-d", "another",
            f"http://127.0.0.1:{port}/",
        )  # fmt: skip
        assert await process.wait() == 0
    assert got == [b"the body", b"another"]
