"""The client against a small server that speaks just enough of the protocol, over real HTTP."""

import contextlib
import dataclasses
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from eventing.errors import (
    ApiError,
    ApiUnavailableError,
    ObjectConflictError,
    ObjectExistsError,
    ObjectNotFoundError,
    ResourceExpiredError,
)
from eventing.kube import Cluster, KubeClient
from eventing.resources.kinds import Kind, Object

THING = Kind(group="example.com", version="v1", kind="Thing", plural="things", schema={})
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[KubeClient]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler) -> KubeClient:
            runner = web.ServerRunner(web.Server(handler))
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            client = KubeClient(Cluster(f"http://127.0.0.1:{runner.addresses[0][1]}", token="s3cret"), user_agent="test/1")
            stack.push_async_callback(client.aclose)
            return client

        yield start


def status(code: int, reason: str = "", message: str = "no") -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message}, status=code)


async def test_requests_as_kubernetes_wants_them(serve: Serve) -> None:
    seen: list[tuple[str, str, str, Any]] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.headers["Authorization"] == "Bearer s3cret"
        assert request.headers["User-Agent"] == "test/1"
        body = json.loads(await request.read() or b"null")
        seen.append((request.method, str(request.rel_url), request.headers.get("Content-Type", ""), body))
        return web.json_response({"ok": True})

    client = await serve(handler)
    obj: Object = {"metadata": {"namespace": "a", "name": "b/c"}}
    await client.get(THING, "a", "b")
    await client.create(THING, obj, field_manager="me")
    await client.replace(THING, obj, "status")
    await client.patch(THING, "a", "b", {"x": 1}, subresource="status")
    await client.patch(THING, "a", "b", {}, content_type="application/apply-patch+yaml", field_manager="me", force=True)
    await client.delete(THING, "a", "b", uid="7")
    root = "/apis/example.com/v1/namespaces/a/things"
    assert [(method, url) for method, url, *_ in seen] == [
        ("GET", f"{root}/b"),
        ("POST", f"{root}?fieldManager=me"),
        ("PUT", f"{root}/b%2Fc/status"),
        ("PATCH", f"{root}/b/status"),
        ("PATCH", f"{root}/b?fieldManager=me&force=true"),
        ("DELETE", f"{root}/b"),
    ]
    assert [kind for *_, kind, _ in seen[3:5]] == ["application/merge-patch+json", "application/apply-patch+yaml"]
    assert seen[5][3]["preconditions"] == {"uid": "7"}


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (404, "NotFound", ObjectNotFoundError),
        (409, "AlreadyExists", ObjectExistsError),
        (409, "Conflict", ObjectConflictError),
        (410, "Expired", ResourceExpiredError),
        (429, "TooManyRequests", ApiUnavailableError),
        (500, "InternalError", ApiUnavailableError),
        (403, "Forbidden", ApiError),
        (302, "", ApiError),
    ],
)
async def test_errors(serve: Serve, code: int, reason: str, error: type[ApiError]) -> None:
    async def handler(_request: web.BaseRequest) -> web.Response:
        answer = status(code, reason, "what went wrong")
        answer.headers["Retry-After"] = "3"
        return answer

    client = await serve(handler)
    with pytest.raises(error) as caught:
        await client.get(THING, "a", "b")
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.message, caught.value.retry_after) == (code, "what went wrong", 3.0)


async def test_an_answer_that_is_not_json_is_no_answer(serve: Serve) -> None:
    async def handler(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="<html>")

    with pytest.raises(ApiUnavailableError):
        await (await serve(handler)).get(THING, "a", "b")


async def test_no_server_and_no_secret_in_the_message() -> None:
    client = KubeClient(Cluster("http://127.0.0.1:1", token="s3cret"), user_agent="t")
    with pytest.raises(ApiUnavailableError) as caught:
        await client.get(THING, "a", "b")
    await client.aclose()
    assert caught.value.retriable
    assert "s3cret" not in str(caught.value)


async def test_list_reads_pages_and_starts_over_without_them_when_they_expire(serve: Serve) -> None:
    queries: list[dict[str, str]] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        query = dict(request.query)
        queries.append(query)
        if query.get("continue") == "1":
            return status(410, "Expired")
        names = ["a", "b", "c"] if "limit" not in query else ["a"]
        metadata = {"resourceVersion": "9"} | ({"continue": "1"} if "limit" in query else {})
        return web.json_response({"metadata": metadata, "items": [{"metadata": {"name": n}} for n in names]})

    items, version = await (await serve(handler)).list(THING, label_selector="x=y")
    assert [item["metadata"]["name"] for item in items] == ["a", "b", "c"]
    assert (items[0]["kind"], items[0]["apiVersion"], version) == ("Thing", "example.com/v1", "9")
    assert all(query["labelSelector"] == "x=y" for query in queries)


async def test_watch_yields_frames_of_any_size_and_ends_with_the_server(serve: Serve) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert dict(request.query) == {
            "watch": "true",
            "resourceVersion": "5",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": "60",
        }
        response = web.StreamResponse()
        await response.prepare(request)
        for type_, value in (("ADDED", "x"), ("MODIFIED", "y" * 300_000), ("BOOKMARK", "")):
            frame = json.dumps({"type": type_, "object": {"value": value}}).encode() + b"\n"
            await response.write(frame[:7])
            await response.write(frame[7:])
        return response

    client = await serve(handler)
    watch = client.watch(THING, resource_version="5", timeout_s=60)
    events = [(type_, len(obj["value"])) async for type_, obj in watch]
    assert events == [("ADDED", 1), ("MODIFIED", 300_000), ("BOOKMARK", 0)]


@pytest.mark.parametrize("in_stream", [True, False])
async def test_watch_of_the_past_is_expired(serve: Serve, *, in_stream: bool) -> None:
    async def handler(_request: web.BaseRequest) -> web.Response:
        if not in_stream:
            return status(410, "Expired")
        return web.json_response({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}})

    client = await serve(handler)
    with pytest.raises(ResourceExpiredError):
        await anext(client.watch(THING, resource_version="5", timeout_s=60))


async def test_kind_of_asks_discovery_once(serve: Serve) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        resources = [
            {"name": "things", "kind": "Thing", "namespaced": True},
            {"name": "things/status", "kind": "Thing", "namespaced": True},
        ]
        return web.json_response({"resources": resources})

    client = await serve(handler)
    for _ in range(2):
        kind = await client.kind_of("example.com/v1", "Thing")
    assert (kind.group, kind.version, kind.plural, kind.status) == ("example.com", "v1", "things", True)
    with pytest.raises(ObjectNotFoundError):
        await client.kind_of("v1", "Other")
    assert asked == ["/apis/example.com/v1", "/api/v1"]


async def test_a_token_that_cannot_be_read_is_tried_again(serve: Serve, tmp_path: Path) -> None:
    seen = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({})

    url = (await serve(handler))._cluster.server
    client = KubeClient(Cluster(url, token_file=tmp_path / "token"), user_agent="test/1")
    try:
        with pytest.raises(ApiUnavailableError, match="cannot read"):
            await client.get(THING, "ns", "a")
        (tmp_path / "token").write_text("renewed\n")
        await client.get(THING, "ns", "a")
    finally:
        await client.aclose()
    assert seen == ["Bearer renewed"]


def issued(
    name: str, usage: x509.ObjectIdentifier, by: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (by[0].subject, by[1]) if by else (subject, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if by:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
    return builder.sign(signer, hashes.SHA256()), key


def pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[str, str]:
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


async def test_a_client_certificate_is_shown_and_the_server_must_be_of_its_authority(tmp_path: Path) -> None:
    authority = issued("authority", ExtendedKeyUsageOID.SERVER_AUTH, None)
    ca_data, _ = pem(*authority)
    (tmp_path / "ca.crt").write_text(ca_data)
    for name, text in zip(
        ("server.crt", "server.key"), pem(*issued("s", ExtendedKeyUsageOID.SERVER_AUTH, authority)), strict=True
    ):
        (tmp_path / name).write_text(text)
    certificate, key = pem(*issued("somebody", ExtendedKeyUsageOID.CLIENT_AUTH, authority))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED

    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        shown = request.transport.get_extra_info("peercert")
        return web.json_response({"subject": dict(part[0] for part in shown["subject"])})

    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    with_certificate = Cluster(url, ca_data=ca_data, client_certificate_data=certificate, client_key_data=key)
    known, nobody, mistrusting = (
        KubeClient(cluster, user_agent="test/1")
        for cluster in (with_certificate, Cluster(url, ca_data=ca_data), dataclasses.replace(with_certificate, ca_data=None))
    )
    try:
        assert (await known.get(THING, "ns", "a"))["subject"] == {"commonName": "somebody"}
        assert "PRIVATE" not in repr(with_certificate)
        for client in (nobody, mistrusting):
            with pytest.raises(ApiUnavailableError):
                await client.get(THING, "ns", "a")
    finally:
        for client in (known, nobody, mistrusting):
            await client.aclose()
        await runner.cleanup()
