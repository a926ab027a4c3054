"""What the server refuses: strangers, browsers, too much, too deep, nonsense."""

import asyncio
import contextlib
import json
import logging
import ssl
from typing import Any

import pytest

from tests.unit.apiserver.client import SHAPES, Client, shape


@pytest.mark.parametrize("path", ["/api", "/apis", "/version", "/openapi/v3", SHAPES, "/nothing", "/"])
@pytest.mark.parametrize("token", [None, "wrong", "admin-token2", ""])
async def test_without_a_known_token_nothing_is_told(api: Client, path: str, token: str | None) -> None:
    code, body, response = await api.ask_all("GET", path, token=token)
    assert (code, body["kind"], body["reason"]) == (401, "Status", "Unauthorized")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_health_is_open(api: Client) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert await api.ask("GET", path, token=None) == (200, b"ok")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example.com"},
        {"Host": "127.0.0.1.evil.example.com:443"},
        {"Host": ""},
        {"Origin": "https://localhost"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Mode": "no-cors"},
    ],
)
@pytest.mark.parametrize("path", [SHAPES, "/healthz"])
async def test_a_web_page_cannot_reach_it(api: Client, headers: dict[str, str], path: str) -> None:
    code, body = await api.ask("GET", path, headers=headers)
    assert (code, body["reason"]) == (403, "Forbidden")


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "LOCALHOST:1", "[::1]:1", "127.0.0.1"])
async def test_its_own_names_are_good(api: Client, host: str) -> None:
    assert (await api.ask("GET", SHAPES, headers={"Host": host}))[0] == 200


async def test_bodies_are_limited(api: Client) -> None:
    code, body = await api.ask("POST", SHAPES, b"x" * (3 * 1024 * 1024 + 1))
    assert (code, body["reason"], body["message"]) == (
        413,
        "RequestEntityTooLarge",
        "Request entity too large: limit is 3145728",
    )


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "application/json"),
        (b"[" * 100_000, "application/yaml"),
        (b"a: b: c", "application/yaml"),
        (b"- !!python/object/apply:os.system ['true']", "application/yaml"),
        (b"k8s\x00\xff\xff\xff", "application/vnd.kubernetes.protobuf"),
        (b"nope", "application/vnd.kubernetes.protobuf"),
    ],
    ids=str,
)
async def test_what_cannot_be_read_is_a_bad_request(api: Client, body: bytes, content_type: str) -> None:
    code, answer = await api.ask("POST", SHAPES, body, content_type=content_type)
    assert (code, answer["reason"]) == (400, "BadRequest")


async def test_other_types_are_415(api: Client) -> None:
    code, body = await api.ask("POST", SHAPES, b"<a/>", content_type="text/xml")
    assert (code, body["reason"]) == (415, "UnsupportedMediaType")


async def test_deep_objects_are_refused(api: Client) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = {"a": deep}
    code, body = await api.ask("POST", SHAPES, shape("a", free=deep))
    assert (code, body["reason"]) == (422, "Invalid")
    assert "deep" in body["message"]
    await api.create(SHAPES, shape("a"))
    patch: Any = 1
    for _ in range(900):
        patch = {"a": patch}
    code, body = await api.ask("PATCH", f"{SHAPES}/a", {"spec": {"free": patch}}, content_type="application/merge-patch+json")
    assert (code, body["reason"]) in {(400, "BadRequest"), (422, "Invalid")}


async def test_huge_names_values_and_queries(api: Client) -> None:
    assert (await api.ask("GET", f"{SHAPES}/{'a' * 20_000}"))[0] == 404
    labels = {"metadata": {"name": "a", "labels": {"k": "v" * 64}}}
    assert (await api.ask("POST", SHAPES, shape("a") | labels))[0] == 422
    labels = {"metadata": {"name": "a", "labels": {"k" * 64: "v"}}}
    assert (await api.ask("POST", SHAPES, shape("a") | labels))[0] == 422
    annotations = {"metadata": {"name": "a", "annotations": {"k": "v" * 300_000}}}
    code, body = await api.ask("POST", SHAPES, shape("a") | annotations)
    assert (code, "annotations" in body["message"]) == (422, True)
    assert (await api.ask("GET", SHAPES, **{f"p{i}": "1" for i in range(200)}))[0] == 400
    assert (await api.ask("GET", SHAPES, limit="many"))[0] == 400


async def test_a_head_without_end_ends_the_connection(api: Client) -> None:
    host, port = api.url.removeprefix("https://").split(":")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, int(port), ssl=trust)
    writer.write(b"GET / HTTP/1.1\r\nX: ")
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            writer.write(b"x" * 10_000)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
    writer.transport.abort()
    assert (await api.ask("GET", SHAPES))[0] == 200


@pytest.mark.parametrize("name", ["..", "%2e%2e", "a%2Fb", "%00", "a b", "-"])
async def test_odd_names_find_nothing(api: Client, name: str) -> None:
    code, body = await api.ask("GET", f"{SHAPES}/{name}")
    assert code in {404, 200}, body
    if code == 200:
        assert body["kind"] == "ShapeList"  # the client resolved the dots itself


async def test_secrets_are_not_in_errors(api: Client) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "not base64: hunter2"}}
    code, body = await api.ask("POST", "/api/v1/namespaces/default/secrets", secret)
    assert code == 422
    assert "hunter2" not in json.dumps(body)


async def test_secrets_and_tokens_are_in_no_log(api: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = "/api/v1/namespaces/default/secrets"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "hunter2"}}
    await api.create(secrets, secret)
    await api.patch(f"{secrets}/s", {"stringData": {"key": "hunter3"}})
    await api.ask("POST", secrets, secret)
    await api.ask("POST", secrets, b'{"stringData": {"key": "hunter4"')
    await api.ask("PATCH", f"{secrets}/s", {"data": {"key": ["hunter5"]}}, content_type="application/merge-patch+json")
    await api.ask("GET", secrets, token="hunter6")
    await api.ask("DELETE", f"{secrets}/s")
    assert "hunter" not in caplog.text
    assert "aHVudGVy" not in caplog.text
    assert "admin-token" not in caplog.text
    assert "hunter" not in repr(api.server)


async def test_a_name_that_was_bound_to_this_machine_afterwards_finds_nothing(api: Client) -> None:
    """DNS rebinding: the browser believes that it still speaks to evil.example, and the address is ours by now."""
    host, port = api.url.removeprefix("https://").split(":")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # the user has clicked the warning away
    reader, writer = await asyncio.open_connection(host, int(port), ssl=trust, server_hostname="evil.example")
    for path in ("/version", "/api/v1/namespaces/default/secrets", "/healthz"):
        lines = f"GET {path} HTTP/1.1\r\nHost: evil.example:{port}\r\nAuthorization: Bearer admin-token\r\n\r\n"
        writer.write(lines.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 ")
        assert b"access-control" not in head.lower()
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        assert json.loads(await reader.readexactly(int(length.split(b":")[1])))["reason"] == "Forbidden"
    writer.transport.abort()


async def test_preflights_of_pages_are_refused(api: Client) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    code, _, response = await api.ask_all("OPTIONS", SHAPES, headers=headers, token=None)
    assert code == 403
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_nonsense_gets_the_text_that_kubernetes_gives(api: Client) -> None:
    strict = {"fieldValidation": "Strict"}
    code, body = await api.ask("POST", SHAPES, shape("a", colour="red"), **strict)
    assert (code, body["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.colour"' in body["message"]
    code, body = await api.ask("POST", SHAPES, shape("a", color=7))
    assert (code, body["reason"]) == (422, "Invalid")
    assert 'spec.color: Invalid value: "integer": spec.color in body must be of type string: "integer"' in body["message"]
    code, body = await api.ask("POST", SHAPES, shape("a" * 254))
    assert (code, body["reason"]) == (422, "Invalid")
    assert "must be no more than 253" in body["message"]
    code, body = await api.ask("POST", SHAPES, shape("A_b"))
    assert "a lowercase RFC 1123 subdomain must consist of" in body["message"]
    code, body = await api.ask("POST", SHAPES, shape("a") | {"metadata": {"name": ["a"]}})
    assert code in {400, 422}
    code, body = await api.ask("POST", SHAPES, [1])
    assert (code, body["reason"]) == (400, "BadRequest")


async def test_true_is_not_one(api: Client) -> None:
    await api.create(SHAPES, shape("a", free={"x": 1}))
    changed = await api.patch(f"{SHAPES}/a", {"spec": {"free": {"x": True}}})
    assert changed["spec"]["free"]["x"] is True
    assert changed["metadata"]["generation"] == 2
